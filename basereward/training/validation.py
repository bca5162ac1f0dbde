"""How good the model is on comparisons that it doesn't train on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.evaluation import Evaluation, evaluate, pair_metrics
from basereward.scoring.ordered import Rewards, score_in_order
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import write_text
from basereward.training.data_loader import Reader, nothing_usable
from basereward.training.distributed import Ranks
from basereward.training.parallelize import Pass
from basereward.training.rejected_rows import RejectedRows


class HeldOut:
    """The held-out comparisons of a run.

    Args:
        reader: Of the data sets.
        rejected: Takes the comparisons that can't be encoded.
        batch_size: Comparisons a forward pass.
        ranks: The processes, which share the comparisons.

    Attributes:
        results: Of the latest evaluation: each comparison's rewards, or why it has none.
        seconds: How long the latest evaluation took.
    """

    def __init__(self, reader: Reader, rejected: RejectedRows, batch_size: int, ranks: Ranks) -> None:
        reader.turn_to(0)
        self.comparisons = [comparison for comparisons in reader.read() for comparison in comparisons]
        self.rejected = rejected
        self.batch_size = batch_size
        self.ranks = ranks
        self.results: list[Rewards | DataError] = []
        self.seconds = 0.0
        self._spare: Any = None

    def evaluate(self, passing: Pass) -> dict[str, Any]:
        """Return the metrics of pairs, and mean and deviation of the rewards.

        Raises:
            DataError: When not one comparison can be encoded.
        """
        began = time.monotonic()
        self.results = self._scored(passing)
        self.seconds = time.monotonic() - began
        used: list[Comparison] = []
        rewards: list[list[float]] = []
        errors: list[DataError] = []
        for comparison, result in zip(self.comparisons, self.results, strict=True):
            if isinstance(result, DataError):
                errors.append(result)
                self.rejected.add(result, split="eval", id=comparison.id)
            else:
                used.append(comparison)
                rewards.append(result)
        if not used:
            raise nothing_usable("eval", len(errors), errors[0])
        flat = [reward for group in rewards for reward in group]
        mean = math.fsum(flat) / len(flat)
        deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in flat) / len(flat))
        return {**pair_metrics(used, rewards), "reward_mean": mean, "reward_std": deviation}

    def _scored(self, passing: Pass) -> list[Rewards | DataError]:
        """Return the results of all comparisons, each scored by one of the processes."""
        if self.ranks.size > 1 and self._spare is None:
            self._spare = _first_prepared(self.comparisons, passing)
        own = self.comparisons[self.ranks.rank :: self.ranks.size]
        model = RewardModel(passing, {})
        with passing.in_step(self.ranks, self._spare):
            scored = score_in_order(model, own, batch_size=self.batch_size)
            found = [result for _, result in scored]
        found_by = self.ranks.gather(found)
        return [
            found_by[number % self.ranks.size][number // self.ranks.size]
            for number in range(len(self.comparisons))
        ]

    def remember(self, path: Path) -> None:
        """Write the latest results, for `remembered`."""
        lines: list[dict[str, Any]] = [{"seconds": self.seconds}]
        for result in self.results:
            if isinstance(result, DataError):
                lines.append({"error": {name: getattr(result, name) for name in ERROR_FIELDS}})
            else:
                lines.append({"rewards": result})
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def remembered(self, path: Path) -> Evaluation:
        """Return the evaluation of results that were written, without a model."""
        [first, *lines] = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        results: list[Rewards | DataError] = [
            line["rewards"] if "rewards" in line else DataError(**line["error"]) for line in lines
        ]
        scorer = _Remembered(dict(zip(map(id, self.comparisons), results, strict=True)))
        return replace(evaluate(scorer, self.comparisons), seconds=first["seconds"])


ERROR_FIELDS = ("reason", "file", "line", "field")


class _Remembered:
    """Gives comparisons the rewards that they had."""

    def __init__(self, results: Mapping[int, Rewards | DataError]) -> None:
        self.results = results

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int
    ) -> Iterator[tuple[Comparison, Rewards | DataError]]:
        return ((comparison, self.results[id(comparison)]) for comparison in comparisons)


def _first_prepared(comparisons: Iterable[Comparison], passing: Pass) -> Any:
    for comparison in comparisons:
        try:
            return passing.prepare(comparison)
        except DataError:
            continue
    return None


def why_not_judged(comparison: Comparison) -> DataError | None:
    """Return why a comparison tells nothing about a model, or None where it does."""
    if comparison.ranks is None:
        return DataError("has no ranks or ratings to judge the model by", field="ranks")
    if len(comparison.responses) == 1:
        return DataError("there is one response; two are needed to judge the model by", field="responses")
    if len(set(comparison.ranks)) == 1:
        return DataError("all responses are tied, so none is known to be better", field="ranks")
    return None
