"""A training whose numbers have ceased to be numbers: which rows did it, and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from basereward.comparison import Comparison
from basereward.data.writing import open_writer
from basereward.errors import BaseRewardError, DataError
from basereward.training.distributed import Ranks
from basereward.training.parallelize import Pass
from basereward.training.prefetch import Batch

ROWS_FILE = "not-finite.jsonl"
NUM_NAMED = 8


class NotFinite(BaseRewardError):
    """A training whose loss or gradient is no longer a finite number."""


@torch.no_grad()
def found_not_finite(
    batch: Batch,
    passing: Pass,
    ranks: Ranks,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    losses: Sequence[float],
    norm: float,
    step: int,
    run_dir: Path,
) -> NotFinite:
    """Find the rows at fault, write them to `not-finite.jsonl`, and return the error that names them.

    Args:
        batch: The step's rows of this process.
        passing: Scores them one by one.
        ranks: The processes.
        autocast: Returns the context in which the model runs.
        losses: Summed losses of the step.
        norm: The norm of its gradient.
        step: The step's number, counted from 1.
        run_dir: Where the rows are written.
    """
    at_fault = []
    with passing.in_step(ranks, batch.spare):
        for comparison, prepared in zip(batch.comparisons, batch.prepared, strict=True):
            with autocast():
                if not bool(passing.score_of([prepared]).isfinite().all()):
                    at_fault.append(comparison)
    gathered = [row for rows in ranks.gather(at_fault) for row in rows]
    rows = gathered or [row for rows in ranks.gather(batch.comparisons) for row in rows]
    if ranks.is_first:
        _write(rows, run_dir / ROWS_FILE)
    named = [row.label for row in rows]
    what = "loss" if not all(map(math.isfinite, losses)) else "gradient"
    value = next((loss for loss in losses if not math.isfinite(loss)), norm)
    whose = "rewards that are not finite" if gathered else "finite rewards; all rows of the step"
    more = f" and {len(named) - NUM_NAMED} more" if len(named) > NUM_NAMED else ""
    return NotFinite(
        f"step {step}: the {what} is {value}; {whose}: {', '.join(named[:NUM_NAMED])}{more}. "
        f"The step was not applied, and {run_dir / ROWS_FILE} has these rows; a lower train.lr, more warm-up "
        "or train.precision = 'fp32' may help"
    )


def _write(rows: Sequence[Comparison], path: Path) -> None:
    with open_writer(path, overwrite=True) as writer:
        for row in rows:
            try:
                writer.write(row)
            except DataError:  # an image that has gone since; the row is named all the same
                continue
