"""Find and save the rows that made the loss or gradient non-finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from basereward.comparison import Comparison
from basereward.data.writing import open_writer
from basereward.errors import BaseRewardError, DataError
from basereward.training.model_state import TrainedModel
from basereward.training.prefetch import Batch
from basereward.training.run_directory import NONFINITE_FILE

NUM_NAMED = 8


class NonFiniteError(BaseRewardError):
    """The loss or the gradient of a step is NaN or infinite."""


@torch.no_grad()
def nonfinite_error(
    batch: Batch, model: TrainedModel, *, losses: Sequence[float], norm: float, step: int, run_dir: Path
) -> NonFiniteError:
    """Find the rows with non-finite rewards, write them to `not-finite.jsonl`, and return the error to raise.

    Args:
        batch: The step's rows on this rank.
        model: Scores them one by one.
        losses: Summed losses of the step by rank.
        norm: The norm of its gradient.
        step: The step's number, counted from 1.
        run_dir: The run directory.
    """
    group = model.group
    at_fault = []
    with model.module.join_uneven_inputs(group, batch.dummy):
        for comparison, prepared in zip(batch.comparisons, batch.prepared, strict=True):
            with model.precision.autocast():
                if not bool(model.module.score_of([prepared]).isfinite().all()):
                    at_fault.append(comparison)
    gathered = [row for rows in group.by_data_rank(group.all_gather_objects(at_fault)) for row in rows]
    all_rows = group.by_data_rank(group.all_gather_objects(batch.comparisons))
    rows = gathered or [row for rows in all_rows for row in rows]
    if group.is_main:
        _write(rows, run_dir / NONFINITE_FILE)
    names = [row.label for row in rows]
    quantity = "loss" if not all(map(math.isfinite, losses)) else "gradient"
    value = next((loss for loss in losses if not math.isfinite(loss)), norm)
    rewards = "rewards that are not finite" if gathered else "finite rewards; all rows of the step"
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return NonFiniteError(
        f"step {step}: the {quantity} is {value}; {rewards}: {', '.join(names[:NUM_NAMED])}{more}. "
        f"The step was not applied, and {run_dir / NONFINITE_FILE} has these rows; a lower train.lr, more "
        "warm-up or train.precision = 'fp32' may help"
    )


def _write(rows: Sequence[Comparison], path: Path) -> None:
    with open_writer(path, overwrite=True) as writer:
        for row in rows:
            try:
                writer.write(row)
            except DataError:  # an image that has been removed since; the error names the row all the same
                continue
