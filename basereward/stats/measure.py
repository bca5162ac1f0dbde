"""A measure: the mean credit of some units, or an average of such means, with its 95 % interval.

Every official metric is of this form. The accuracy of a category is the mean credit of its pairs, a macro
average is the mean of several such means, and Acc+ is the mean credit of groups.

Shapes: U units, G groups, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from basereward.stats.interval import interval_of, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUM_RESAMPLES = 2000
SEED = 0

Kind = Literal["official", "category", "variant"]
Method = Literal["Wilson", "bootstrap", "paired bootstrap"]


@dataclass(frozen=True)
class Part:
    """The units of one mean, and what that mean counts for in the whole.

    Attributes:
        credit: [U] 1 for a right unit, 0 for a wrong one; the difference of two such in a comparison.
        group: [U] which group a unit is of. Units of one group are not independent of each other: they share
            a prompt and an image.
        chance: [U] the credit that a blind judge is expected to get.
        weight: What the mean is multiplied by; in an average, the weights of all parts add up to 1.
    """

    credit: NDArray[np.float64]
    group: NDArray[np.int64]
    chance: NDArray[np.float64]
    weight: float = 1.0


@dataclass(frozen=True)
class Measure:
    """A weighted sum of means of credit.

    Attributes:
        parts: The means. One is a plain share.
        unit: What the units are: "pairs", "groups", "prompts".
        kind: "official" for what the benchmark's authors report, "category" for a piece of that, "variant"
            for what others report under the same name.
        method: Where its interval comes from.
    """

    parts: tuple[Part, ...]
    unit: str = "pairs"
    kind: Kind = "official"
    method: Method = "Wilson"

    @property
    def value(self) -> float:
        """The weighted sum of the parts' means."""
        return math.fsum(part.weight * part.credit.mean() for part in self.parts)

    @property
    def chance(self) -> float:
        """The value that a blind judge is expected to have."""
        return math.fsum(part.weight * part.chance.mean() for part in self.parts)

    @property
    def num(self) -> int:
        """How many units there are, in all parts."""
        return sum(len(part.credit) for part in self.parts)

    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval."""
        if self.method == "Wilson":
            [part] = self.parts
            found = interval_of(part.credit, part.group)
            return found.low, found.high
        low, high = np.percentile(self.resampled(), [2.5, 97.5])
        if low == high and self.method == "bootstrap":
            # All units are alike, so that resampling them shows nothing; what remains is how few they are.
            num_groups = len(np.unique(np.concatenate([part.group for part in self.parts])))
            low, high = wilson(min(max(self.value, 0.0), 1.0), num_groups)
            return min(low, self.value), max(high, self.value)  # some sums leave 0 to 1 a little
        return float(low), float(high)

    def resampled(self, num: int = NUM_RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
        """Return [R] values of the measure on groups drawn with replacement.

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
            won = drawn @ np.bincount(inverse, weights=part.credit)
            # A part none of whose groups is drawn, which only groups of several parts allow, keeps its mean.
            size = drawn @ np.bincount(inverse).astype(np.float64)
            total += part.weight * np.where(size > 0, won / np.maximum(size, 1), part.credit.mean())
        return total

    def minus(self, other: Measure) -> Measure:
        """Return the paired difference of two measures of the same units.

        Raises:
            ValueError: When they are not of the same units.
        """
        if [part.credit.shape for part in self.parts] != [part.credit.shape for part in other.parts]:
            raise ValueError("a paired difference needs the same units on both sides")
        parts = tuple(
            replace(mine, credit=mine.credit - its.credit, chance=mine.chance - its.chance)
            for mine, its in zip(self.parts, other.parts, strict=True)
        )
        return replace(self, parts=parts, method="paired bootstrap")


def share(
    credit: NDArray[np.float64],  # [U]
    group: NDArray[np.int64],  # [U]
    chance: NDArray[np.float64],  # [U]
    *,
    unit: str = "pairs",
    kind: Kind = "official",
    method: Method = "Wilson",
) -> Measure:
    """Return the mean credit of units as a measure."""
    return Measure((Part(credit, group, chance),), unit, kind, method)


def average(
    measures: Sequence[Measure], weights: Sequence[float] | None = None, *, kind: Kind = "official"
) -> Measure:
    """Return the average of measures, weighted if weights are given; its interval is resampled."""
    weights = [1.0] * len(measures) if weights is None else weights
    parts = tuple(
        replace(part, weight=part.weight * weight / sum(weights))
        for measure, weight in zip(measures, weights, strict=True)
        for part in measure.parts
    )
    return Measure(parts, measures[0].unit, kind, "bootstrap")


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a benchmark's report.

    Attributes:
        name: The metric's; a variant's name says whose it is.
        value: The number, a share of 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        num: How many units it is of.
        unit: What they are.
        kind: "official", "category" or "variant".
        method: "Wilson", "bootstrap" of groups, or "paired bootstrap" for a difference.
        longest: What always preferring the longer response scores; None where that is not known.
        chance: What a blind judge is expected to score; None where that is not known.
    """

    name: str
    value: float
    low: float
    high: float
    num: int
    unit: str = "pairs"
    kind: Kind = "official"
    method: Method = "Wilson"
    longest: float | None = None
    chance: float | None = None

    @classmethod
    def of(cls, name: str, measure: Measure, longest: Measure | None = None) -> Score:
        """Return the score of a measure, beside the same measure of the longer responses."""
        low, high = measure.interval()
        return cls(
            name=name,
            value=measure.value,
            low=low,
            high=high,
            num=measure.num,
            unit=measure.unit,
            kind=measure.kind,
            method=measure.method,
            longest=None if longest is None else longest.value,
            chance=measure.chance,
        )

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the score for a JSON report."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "name"}
