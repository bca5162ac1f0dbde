"""The paired difference of two models on the same comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Item, Scored
from basereward.evaluation.benchmarks.comparisons import order_metrics
from basereward.evaluation.results import Result
from basereward.reporting.tables import Row, Table
from basereward.stats.metric import Kind, Metric
from basereward.storage.reading import parse_json, read_lines, understood

REWARDS_FILE = "rewards.jsonl"


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The difference of a metric between two models.

    Attributes:
        name: The metric's name.
        first: The first model's value.
        second: The second model's value.
        low: Lower end of the 95 % interval of first less second, by paired bootstrap of groups.
        high: Upper end.
        num: Number of units.
        unit: Name of the units.
        kind: "official", "category" or "variant".
        only_first: Units for which the first model scores higher: those that it alone has right.
        only_second: The same of the second model.
        p: McNemar's exact two-sided p-value of these two numbers; it assumes independent units.
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
        return {
            "difference": self.value,
            **{name: value for name, value in asdict(self).items() if name != "name"},
        }


@dataclass(frozen=True)
class PairedMetrics:
    """The metrics of two models on the same comparisons.

    Attributes:
        first: The first model's metrics.
        second: The second model's metrics.
        num: Comparisons that both have scored.
        num_left_out: Comparisons that only one of them has scored, or neither.
    """

    first: Mapping[str, Metric]
    second: Mapping[str, Metric]
    num: int
    num_left_out: int

    @classmethod
    def of_benchmark(
        cls, benchmark: Benchmark, first: Sequence[Result], second: Sequence[Result]
    ) -> PairedMetrics:
        """Return both models' metrics of a benchmark.

        Raises:
            ConfigError: When the results are not of the benchmark's comparisons.
        """
        both = [rewards_of(results, benchmark.items) for results in (first, second)]
        is_scored = [None not in rewards for rewards in zip(*both, strict=True)]
        metrics = []
        for side in both:
            rewards = [scores if by_both else None for scores, by_both in zip(side, is_scored, strict=True)]
            metrics.append(benchmark.metrics(Scored.of(benchmark.items, rewards)))
        num = sum(is_scored)
        return cls(metrics[0], metrics[1], num, len(is_scored) - num)

    @classmethod
    def of_results(cls, first: Sequence[Result], second: Sequence[Result]) -> PairedMetrics:
        """Return both models' accuracies of pairs and of whole groups.

        Raises:
            ConfigError: When the results are not of the same comparisons, or have none in common.
        """
        num_results = len(first) + len(second)
        first, second = shared(first, second)
        metrics = [order_metrics(scored_of(results)) for results in (first, second)]
        return cls(metrics[0], metrics[1], len(first), num_results - 2 * len(first))

    def differences(self) -> list[MetricDifference]:
        """Return the difference of every metric."""
        return differences(self.first, self.second)


def differences(first: Mapping[str, Metric], second: Mapping[str, Metric]) -> list[MetricDifference]:
    """Return the difference of every metric of two models that scored the same comparisons."""
    rows = []
    for name, metric in first.items():
        between = metric.minus(second[name])
        low, high = between.interval()
        gains = metric.gains(second[name])
        only_first, only_second = int((gains > 0).sum()), int((gains < 0).sum())
        rows.append(
            MetricDifference(
                name=name,
                first=metric.value,
                second=second[name].value,
                low=low,
                high=high,
                num=metric.num,
                unit=metric.unit,
                kind=metric.kind,
                only_first=only_first,
                only_second=only_second,
                p=mcnemar(only_first, only_second),
            )
        )
    return rows


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
    """Return the exact two-sided p-value of McNemar's test."""
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
    with understood(path, ConfigError):
        lines = list(read_lines(path))
    results = []
    for number, line in lines:
        try:
            row = parse_json(line.decode("utf-8"))
            results.append(
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
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ConfigError(
                f"{path}:{number} is no line of an evaluation; give a directory that "
                "`basereward evaluate --output` wrote"
            ) from error
    return results


def shared(first: Sequence[Result], second: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the results of the comparisons that both models have scored, in one order.

    Raises:
        ConfigError: When they are not of the same comparisons, or have none in common.
    """
    others = {result.number: result for result in second}
    pairs = [(result, others[result.number]) for result in first if result.number in others]
    for one, other in pairs:
        if (one.id, one.ranks) != (other.id, other.ranks):
            raise ConfigError(
                f"the evaluations are not of the same comparisons: number {one.number} is {one.id!r} in "
                f"one and {other.id!r} in the other"
            )
    if not pairs:
        raise ConfigError("the evaluations have no comparison in common")
    return [result for result, _ in pairs], [result for _, result in pairs]


def rewards_of(results: Iterable[Result], items: Sequence[Item]) -> list[Sequence[float] | None]:
    """Return the rewards of each comparison of a benchmark, None where there are none.

    Raises:
        ConfigError: When the results are of other comparisons.
    """
    rewards: list[Sequence[float] | None] = [None] * len(items)
    for result in results:
        if result.number >= len(items) or (items[result.number].id, items[result.number].ranks) != (
            result.id,
            result.ranks,
        ):
            raise ConfigError(
                f"the evaluation is not of this benchmark: its comparison {result.number} is {result.id!r}"
            )
        rewards[result.number] = result.rewards
    return rewards


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
