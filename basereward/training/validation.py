"""Validation: the metrics of the model on held-out comparisons."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.evaluation import Evaluation, evaluate, pair_metrics
from basereward.protocols import Paradigm, Scorer
from basereward.reporting.progress import Advance
from basereward.scoring.ordered import Rewards, score_in_order
from basereward.storage.atomic import write_text
from basereward.storage.reading import parse_json, read_lines, understood
from basereward.training.data_loader import DataReader, no_usable_rows
from basereward.training.model_state import TrainedModel
from basereward.training.rejected_rows import RejectedRows


class Validator:
    """The held-out comparisons of a run, and their latest rewards.

    Args:
        reader: Reads the data sets.
        rejected: Lists the comparisons that can't be encoded.
        batch_size: Comparisons read at a time; the model's limits divide them into forward passes.

    Attributes:
        results: Each comparison's rewards in the latest validation, or the error that says why it has none.
        seconds: The time that the latest validation took.
    """

    def __init__(self, reader: DataReader, rejected: RejectedRows, batch_size: int) -> None:
        reader.set_epoch(0)
        self.comparisons = [comparison for comparisons in reader.read() for comparison in comparisons]
        self.rejected = rejected
        self.batch_size = batch_size
        self.results: list[Rewards | DataError] = []
        self.seconds = 0.0
        self._dummy: Any = None

    def validate(self, model: TrainedModel, advance: Advance) -> dict[str, Any] | None:
        """Return the metrics of pairs, and mean and standard deviation of the rewards; None where a judge's
        texts hold no verdict yet, so that no comparison has rewards.

        Args:
            model: The model, which is left in evaluation mode.
            advance: Counts comparisons of this rank as done.

        Raises:
            DataError: When no comparison can be encoded.
        """
        began = time.monotonic()
        model.eval()
        with model.ema.applied():
            self.results = self._score(model, advance)
        self.seconds = time.monotonic() - began
        scored: list[Comparison] = []
        rewards: list[list[float]] = []
        errors: list[DataError] = []
        for comparison, result in zip(self.comparisons, self.results, strict=True):
            if isinstance(result, DataError):
                errors.append(result)
                self.rejected.add(result, split="eval", id=comparison.id)
            else:
                scored.append(comparison)
                rewards.append(result)
        unread = model.paradigm.reason_for_nan
        # A reward that is not finite is another matter: the training has diverged.
        if (
            not scored
            and unread != Paradigm.reason_for_nan
            and {error.reason for error in errors} == {unread}
        ):
            return None
        if not scored:
            raise no_usable_rows("eval", len(errors), errors[0])
        flat = [reward for group in rewards for reward in group]
        mean = math.fsum(flat) / len(flat)
        deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in flat) / len(flat))
        return {**pair_metrics(scored, rewards), "reward_mean": mean, "reward_std": deviation}

    def _score(self, model: TrainedModel, advance: Advance) -> list[Rewards | DataError]:
        """Return the results of all comparisons, which the ranks share."""
        group = model.group
        rank, world_size = group.data_rank, group.num_data_ranks
        if group.world_size > 1 and self._dummy is None:
            self._dummy = _first_prepared(self.comparisons, model)
        with model.module.join_uneven_inputs(group, self._dummy):
            scored = score_in_order(
                model.scorer,
                self.comparisons[rank::world_size],
                batch_size=self.batch_size,
                advance=advance,
            )
            results = [result for _, result in scored]
        by_rank = group.by_data_rank(group.all_gather_objects(results))
        return [by_rank[i % world_size][i // world_size] for i in range(len(self.comparisons))]

    def save_results(self, path: Path) -> None:
        """Write the latest results, for `load_results`."""
        lines: list[dict[str, Any]] = [{"seconds": self.seconds}]
        for result in self.results:
            if isinstance(result, DataError):
                lines.append({"error": {name: getattr(result, name) for name in ERROR_FIELDS}})
            else:
                lines.append({"rewards": result})
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def load_results(self, path: Path) -> Evaluation:
        """Return the evaluation of saved results, without a model.

        Raises:
            ConfigError: When they can't be read, or are not of these comparisons.
        """
        with understood(path, ConfigError):
            [first, *lines] = [parse_json(line.decode("utf-8")) for _, line in read_lines(path)]
            results: list[Rewards | DataError] = [
                list(map(float, line["rewards"])) if "rewards" in line else DataError(**line["error"])
                for line in lines
            ]
            seconds = float(first["seconds"])
            for comparison, result in zip(self.comparisons, results, strict=True):
                if not isinstance(result, DataError) and len(result) != len(comparison.responses):
                    raise ValueError("a line has not as many rewards as its comparison has responses")
        scorer = _SavedResults(dict(zip(map(id, self.comparisons), results, strict=True)))
        return replace(evaluate(scorer, self.comparisons), seconds=seconds)


ERROR_FIELDS = ("reason", "file", "line", "field")


class _SavedResults(Scorer[Rewards]):
    """A scorer that returns saved results."""

    def __init__(self, results: Mapping[int, Rewards | DataError]) -> None:
        self.results = results

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, Rewards | DataError]]:
        return ((comparison, self.results[id(comparison)]) for comparison in comparisons)


def _first_prepared(comparisons: Iterable[Comparison], model: TrainedModel) -> Any:
    for comparison in comparisons:
        try:
            return model.paradigm.prepare(comparison)
        except DataError:
            continue
    return None


def unevaluable_reason(comparison: Comparison) -> DataError | None:
    """Return why a model can't be judged by a comparison, or None where it can."""
    if comparison.ranks is None:
        return DataError("has no ranks or ratings to judge the model by", field="ranks")
    if len(comparison.responses) == 1:
        return DataError("there is one response; two are needed to judge the model by", field="responses")
    if len(set(comparison.ranks)) == 1:
        return DataError("all responses are tied, so none is known to be better", field="ranks")
    return None
