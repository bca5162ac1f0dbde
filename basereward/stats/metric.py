"""A metric: the mean score of units, or an average of such means, with its 95 % interval.

Every official metric is of this form. The accuracy of a category is the mean score of its pairs, a macro
average is the mean of several such means, and Acc+ is the mean score of groups. An F1 score is a
weighted mean.

Shapes: U units, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from basereward.stats.interval import interval_of, wilson

NUM_RESAMPLES = 2000
SEED = 0

Kind = Literal["official", "category", "variant"]
Method = Literal["Wilson", "bootstrap", "paired bootstrap"]


@dataclass(frozen=True)
class MetricPart:
    """The units of one mean, and the weight of that mean in the metric.

    Attributes:
        unit_scores: [U] 1 for a right unit, 0 for a wrong one; the difference of two such in a comparison.
        group: [U] the group of each unit. Units of one group are not independent of each other: they share a
            prompt and an image.
        chance: [U] the expected score of random rewards.
        weight: The mean's factor; in an average, the weights of all parts add up to 1.
        unit_weights: [U] how much each unit counts in the mean, where that follows from the rewards, as in an
            F1 score; None where all count alike.
    """

    unit_scores: NDArray[np.float64]
    group: NDArray[np.int64]
    chance: NDArray[np.float64]
    weight: float = 1.0
    unit_weights: NDArray[np.float64] | None = None

    @property
    def mean(self) -> float:
        """The mean of the unit scores; 0 where no unit counts."""
        if self.unit_weights is None:
            return float(self.unit_scores.mean())
        total = self.unit_weights.sum()
        return float(self.unit_weights @ self.unit_scores / total) if total > 0 else 0.0


@dataclass(frozen=True)
class Metric:
    """A weighted sum of means of unit scores.

    Attributes:
        parts: The means. One is a plain share.
        unit: Name of the units: "pairs", "groups", "prompts".
        kind: "official" for the metric of the benchmark's authors, "category" for a part of it, "variant" for
            a metric that others report under the same name.
        method: The method of its interval.
    """

    parts: tuple[MetricPart, ...]
    unit: str = "pairs"
    kind: Kind = "official"
    method: Method = "Wilson"

    @property
    def value(self) -> float:
        """The weighted sum of the parts' means."""
        return math.fsum(part.weight * part.mean for part in self.parts)

    @property
    def chance(self) -> float:
        """The expected value of random rewards."""
        return math.fsum(part.weight * part.chance.mean() for part in self.parts)

    @property
    def num(self) -> int:
        """The number of units in all parts; those that several parts share count once."""
        return sum(map(len, self._unit_scores()))

    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval."""
        if self.method == "Wilson":
            [part] = self.parts
            interval = interval_of(part.unit_scores, part.group)
            return interval.low, interval.high
        low, high = np.percentile(self.resampled(), [2.5, 97.5])
        if low == high and self.method == "bootstrap":
            # All units are alike, so that resampling can't vary; Wilson's interval counts how few they are.
            num_groups = len(np.unique(np.concatenate([part.group for part in self.parts])))
            low, high = wilson(min(max(self.value, 0.0), 1.0), num_groups)
            return min(low, self.value), max(high, self.value)  # some sums leave 0 to 1 a little
        return float(low), float(high)

    def resampled(self, num: int = NUM_RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
        """Return [R] values of the metric on groups drawn with replacement.

        Groups are drawn within the part in which they first appear: how many units a category has is the
        benchmark's choice, not chance.
        """
        rng = np.random.default_rng(seed)
        _, member = np.unique(np.concatenate([part.group for part in self.parts]), return_inverse=True)
        members = np.split(member, np.cumsum([len(part.group) for part in self.parts])[:-1])
        counts = np.zeros((num, member.max() + 1), dtype=np.float32)  # [R, G]
        is_drawn = np.zeros(counts.shape[1], dtype=bool)
        total = np.zeros(num)
        for part, of in zip(self.parts, members, strict=True):
            groups, inverse = np.unique(of, return_inverse=True)
            new = groups[~is_drawn[groups]]
            if len(new):
                counts[:, new] = rng.multinomial(len(new), np.full(len(new), 1 / len(new)), size=num)
                is_drawn[new] = True
            drawn = counts[:, groups]
            counts_of = np.ones(len(inverse)) if part.unit_weights is None else part.unit_weights
            won = drawn @ np.bincount(inverse, weights=part.unit_scores * counts_of)
            # A part none of whose groups is drawn, which only groups of several parts allow, keeps its mean.
            size = drawn @ np.bincount(inverse, weights=counts_of)
            total += part.weight * np.where(size > 0, won / np.where(size > 0, size, 1), part.mean)
        return total

    def minus(self, other: Metric) -> Metric:
        """Return the paired difference of two metrics of the same units.

        Raises:
            ValueError: When they are not of the same units.
        """
        if [part.unit_scores.shape for part in self.parts] != [
            part.unit_scores.shape for part in other.parts
        ]:
            raise ValueError("a paired difference needs the same units on both sides")
        if any(part.unit_weights is not None for part in self.parts):
            # The units of each side have weights of their own, and are drawn together all the same.
            negative = tuple(replace(part, weight=-part.weight) for part in other.parts)
            return replace(self, parts=self.parts + negative, method="paired bootstrap")
        parts = tuple(
            replace(mine, unit_scores=mine.unit_scores - its.unit_scores, chance=mine.chance - its.chance)
            for mine, its in zip(self.parts, other.parts, strict=True)
        )
        return replace(self, parts=parts, method="paired bootstrap")

    def gains(self, other: Metric) -> NDArray[np.float64]:
        """Return the score of each unit less that of the same unit of another metric, each unit once."""
        pairs = zip(self._unit_scores(), other._unit_scores(), strict=True)
        return np.concatenate([mine - its for mine, its in pairs])

    def _unit_scores(self) -> list[NDArray[np.float64]]:
        """Return the unit scores of each part, of several parts of the same units once."""
        return list({id(part.unit_scores): part.unit_scores for part in self.parts}.values())


def unit_mean(
    unit_scores: NDArray[np.float64],  # [U]
    group: NDArray[np.int64],  # [U]
    chance: NDArray[np.float64],  # [U]
    *,
    unit: str = "pairs",
    kind: Kind = "official",
    method: Method = "Wilson",
) -> Metric:
    """Return the mean of unit scores as a metric."""
    return Metric((MetricPart(unit_scores, group, chance),), unit, kind, method)


def average(
    metrics: Sequence[Metric], weights: Sequence[float] | None = None, *, kind: Kind = "official"
) -> Metric:
    """Return the average of metrics, weighted if weights are given; its interval is resampled."""
    weights = [1.0] * len(metrics) if weights is None else weights
    parts = tuple(
        replace(part, weight=part.weight * weight / sum(weights))
        for metric, weight in zip(metrics, weights, strict=True)
        for part in metric.parts
    )
    return Metric(parts, metrics[0].unit, kind, "bootstrap")


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a benchmark's report.

    Attributes:
        name: The metric's name; a variant's name says who reports it.
        value: The metric, 0 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        num: Number of units.
        unit: Name of the units.
        kind: "official", "category" or "variant".
        method: "Wilson", "bootstrap" of groups, or "paired bootstrap" for a difference.
        longer_baseline: The score of always preferring the longer response; None where it is not known.
        first_baseline: The score of always preferring the first response; None where the order of the
            responses is not the benchmark's own.
        chance: The expected score of random rewards; None where it is not known.
    """

    name: str
    value: float
    low: float
    high: float
    num: int
    unit: str = "pairs"
    kind: Kind = "official"
    method: Method = "Wilson"
    longer_baseline: float | None = None
    first_baseline: float | None = None
    chance: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        metric: Metric,
        longer_baseline: Metric | None = None,
        first_baseline: Metric | None = None,
    ) -> Score:
        """Return the score of a metric, beside the same metric of the longer and of the first responses."""
        low, high = metric.interval()
        return cls(
            name=name,
            value=metric.value,
            low=low,
            high=high,
            num=metric.num,
            unit=metric.unit,
            kind=metric.kind,
            method=metric.method,
            longer_baseline=None if longer_baseline is None else longer_baseline.value,
            first_baseline=None if first_baseline is None else first_baseline.value,
            chance=metric.chance,
        )

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the score for a JSON report."""
        return {name: value for name, value in asdict(self).items() if name != "name"}
