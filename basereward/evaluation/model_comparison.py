"""The paired difference of two models on the same comparisons."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from basereward.errors import ConfigError
from basereward.evaluation.benchmarks.benchmark import Item, Scored
from basereward.evaluation.benchmarks.comparisons import order_metrics
from basereward.evaluation.results import Result
from basereward.reporting.tables import Row, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from basereward.evaluation.benchmarks.benchmark import Benchmark
    from basereward.stats.metric import Kind, Metric

REWARDS_FILE = "rewards.jsonl"


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """How much more one model scores than another.

    Attributes:
        name: The metric's.
        first: The first model's value.
        second: The second's.
        low: Lower end of the 95 % interval of first less second, by paired bootstrap of groups.
        high: Upper end.
        num: How many units the metric is of.
        unit: What they are.
        kind: "official", "category" or "variant".
        only_first: Units for which the first model scores higher: those that it alone has right.
        only_second: The same of the second.
        p: McNemar's exact two-sided p-value of these two numbers; it takes units to be independent.
    """

    name: str
    first: float
    second: float
    low: float
    high: float
    num: int
    unit: str
    kind: Kind
    only_first: int
    only_second: int
    p: float

    @property
    def value(self) -> float:
        """The difference, first less second."""
        return self.first - self.second

    def __str__(self) -> str:
        return f"{100 * self.value:+.2f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference for a JSON report."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "name"}
        return {"difference": self.value, **own}


@dataclass(frozen=True)
class Sides:
    """What two models have scored of the same comparisons.

    Attributes:
        first: The first model's metrics.
        second: The second's.
        num: Comparisons that both have scored.
        num_left_out: Comparisons that only one of them has, or neither.
    """

    first: Mapping[str, Metric]
    second: Mapping[str, Metric]
    num: int
    num_left_out: int

    @classmethod
    def of_benchmark(cls, benchmark: Benchmark, first: Sequence[Result], second: Sequence[Result]) -> Sides:
        """Return both models' metrics of a benchmark.

        Raises:
            ConfigError: When the results are not of the benchmark's comparisons.
        """
        both = [rewards_of(results, benchmark.items) for results in (first, second)]
        known = [None not in found for found in zip(*both, strict=True)]
        kept = [[found if here else None for found, here in zip(side, known, strict=True)] for side in both]
        mine, its = (benchmark.metrics(Scored.of(benchmark.items, rewards)) for rewards in kept)
        return cls(mine, its, sum(known), len(known) - sum(known))

    @classmethod
    def of_results(cls, first: Sequence[Result], second: Sequence[Result]) -> Sides:
        """Return both models' accuracies of pairs and of whole groups.

        Raises:
            ConfigError: When the results are not of the same comparisons, or have none in common.
        """
        mine, its = shared(first, second)
        left_out = len(first) + len(second) - 2 * len(mine)
        return cls(order_metrics(scored_of(mine)), order_metrics(scored_of(its)), len(mine), left_out)

    def differences(self) -> list[MetricDifference]:
        """Return the difference of every metric."""
        return differences(self.first, self.second)


def differences(first: Mapping[str, Metric], second: Mapping[str, Metric]) -> list[MetricDifference]:
    """Return the difference of every metric of two models that scored the same comparisons."""
    found = []
    for name, mine in first.items():
        its = second[name]
        between = mine.minus(its)
        low, high = between.interval()
        gains = np.concatenate([part.unit_scores for part in between.parts])
        only_first, only_second = int((gains > 0).sum()), int((gains < 0).sum())
        found.append(
            MetricDifference(
                name=name,
                first=mine.value,
                second=its.value,
                low=low,
                high=high,
                num=mine.num,
                unit=mine.unit,
                kind=mine.kind,
                only_first=only_first,
                only_second=only_second,
                p=mcnemar(only_first, only_second),
            )
        )
    return found


def difference_table(first: str, second: str, differences: Iterable[MetricDifference]) -> Table:
    """Return the table of the differences between two models."""
    titles = ("metric", f"A: {first}", f"B: {second}", "A - B", "only A", "only B", "p", "n")
    rows = [
        Row.of(
            item.name,
            f"{100 * item.first:.2f}",
            f"{100 * item.second:.2f}",
            str(item),
            f"{item.only_first:,}",
            f"{item.only_second:,}",
            f"{item.p:.3g}",
            f"{item.num:,} {item.unit}",
            style=item.kind,
        )
        for item in differences
    ]
    return Table(titles, rows)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return how probable a split at least as uneven is, where each unit is as likely to fall either way."""
    num = only_first + only_second
    tail = sum(math.comb(num, count) for count in range(min(only_first, only_second) + 1))
    # Whole numbers, since either of these may be too large for a float.
    return min(2 * tail, 1 << num) / (1 << num)


def is_saved(name: str) -> bool:
    """Tell whether a name is of a saved evaluation: a directory with `rewards.jsonl`, or such a file."""
    path = Path(name)
    return (path / REWARDS_FILE).is_file() or (path.suffix == ".jsonl" and path.is_file())


def read_results(name: str) -> list[Result]:
    """Return the results of a saved evaluation.

    Raises:
        ConfigError: When a line is none of an evaluation's.
    """
    path = Path(name) / REWARDS_FILE if Path(name).is_dir() else Path(name)
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            found.append(
                Result(
                    id=str(row["id"]),
                    source=str(row["source"]),
                    number=int(row["number"]),
                    group=str(row["group"]),
                    rewards=tuple(map(float, row["rewards"])),
                    ranks=tuple(map(float, row["ranks"])),
                    margin=row["margin"],
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}:{number} is no line of an evaluation; give a directory that "
                "`basereward evaluate --output` wrote"
            ) from error
    return found


def shared(first: Sequence[Result], second: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the results of the comparisons that both models have scored, in one order.

    Raises:
        ConfigError: When they are not of the same comparisons, or have none in common.
    """
    others = {result.number: result for result in second}
    pairs = [(result, others[result.number]) for result in first if result.number in others]
    for mine, its in pairs:
        if (mine.id, mine.ranks) != (its.id, its.ranks):
            raise ConfigError(
                f"the evaluations are not of the same comparisons: number {mine.number} is {mine.id!r} in "
                f"one and {its.id!r} in the other"
            )
    if not pairs:
        raise ConfigError("the evaluations have no comparison in common")
    return [mine for mine, _ in pairs], [its for _, its in pairs]


def rewards_of(results: Iterable[Result], items: Sequence[Item]) -> list[Sequence[float] | None]:
    """Return the rewards of each comparison of a benchmark, None where there are none.

    Raises:
        ConfigError: When the results are of other comparisons.
    """
    found: list[Sequence[float] | None] = [None] * len(items)
    for result in results:
        if result.number >= len(items) or (items[result.number].id, items[result.number].ranks) != (
            result.id,
            result.ranks,
        ):
            raise ConfigError(
                f"the evaluation is not of this benchmark: its comparison {result.number} is {result.id!r}"
            )
        found[result.number] = result.rewards
    return found


def scored_of(results: Sequence[Result]) -> Scored:
    """Return results as the columns that metrics are computed from; lengths of responses are not known."""
    items = [
        Item(
            id=result.id,
            group=result.group,
            category="",
            ranks=result.ranks,
            lengths=(0,) * len(result.ranks),
            texts=tuple(range(100 * result.number, 100 * result.number + len(result.ranks))),
            meta={},
        )
        for result in results
    ]
    return Scored.of(items, [result.rewards for result in results])
