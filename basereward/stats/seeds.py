"""Means over seeds, paired differences over seeds and held-out units, and Holm's correction.

Shapes: S seeds, U units, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basereward.stats.metric import Metric

LEVEL = 0.05
"""Significance level: the probability of a false positive."""


@dataclass(frozen=True)
class Units:
    """The units of a metric, mostly pairs, which all runs have in common.

    Attributes:
        unit: Name of the units.
        weight: [U] the factor of a unit's score in the sum that is the metric.
        part: [U] the mean that a unit belongs to; an average has several.
        group: [U] units of one group are not independent of each other.
    """

    unit: str
    weight: NDArray[np.float64]
    part: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def of(cls, metric: Metric) -> Units:
        """Return the units of a metric."""
        sizes = [len(part.unit_scores) for part in metric.parts]
        weights = [part.weight / size for part, size in zip(metric.parts, sizes, strict=True)]
        groups = np.concatenate([part.group for part in metric.parts])
        return cls(
            metric.unit,
            np.repeat(weights, sizes),
            np.repeat(np.arange(len(sizes)), sizes),
            np.unique(groups, return_inverse=True)[1],
        )

    @classmethod
    def average(cls, columns: Sequence[Units]) -> Units:
        """Return the units of the mean of several metrics, whose groups are not each other's."""
        parts: list[NDArray[np.int64]] = []
        groups: list[NDArray[np.int64]] = []
        for column in columns:
            parts.append(column.part + (parts[-1].max() + 1 if parts else 0))
            groups.append(column.group + (groups[-1].max() + 1 if groups else 0))
        return cls(
            columns[0].unit,
            np.concatenate([column.weight / len(columns) for column in columns]),
            np.concatenate(parts),
            np.concatenate(groups),
        )

    def value(self, unit_scores: NDArray[np.float64]) -> float:  # [U]
        """Return the metric."""
        return math.fsum((self.weight * unit_scores).tolist())

    def variance(self, unit_scores: NDArray[np.float64]) -> float:  # [U]
        """Return the variance of the metric over draws of groups, by linearisation."""
        num_groups = int(self.group.max()) + 1
        if num_groups < 2:
            return math.nan
        sizes = np.bincount(self.part, weights=self.weight)
        means = np.bincount(self.part, weights=self.weight * unit_scores) / sizes
        pulls = np.bincount(self.group, weights=self.weight * (unit_scores - means[self.part]))  # [G]
        return num_groups / (num_groups - 1) * float((pulls**2).sum())


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its 95 % interval over the population of seeds.

    Attributes:
        value: The mean.
        half: Half the interval's width; NaN for a single seed.
        num: Number of seeds.
    """

    value: float
    half: float
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the mean of the seeds' values with its t interval."""
        num = len(values)
        mean = math.fsum(values) / num
        if num < 2:
            return cls(mean, math.nan, num)
        variance = math.fsum((value - mean) ** 2 for value in values) / (num - 1)
        return cls(mean, t_quantile(num - 1) * math.sqrt(variance / num), num)


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a cell from the baseline, on the same seeds and held-out units.

    Attributes:
        value: The mean difference.
        low: Lower end of its 95 % interval, over seeds and units.
        high: Upper end.
        p: The two-sided p-value of the null hypothesis of no difference.
        num_seeds: Number of seeds that both have.
        adjusted: The p-value after Holm's correction; the same as `p` before it.
    """

    value: float
    low: float
    high: float
    p: float
    num_seeds: int
    adjusted: float

    def corrected(self, adjusted: float) -> PairedDifference:
        """Return the same difference with its p-value corrected."""
        return replace(self, adjusted=adjusted)

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below the level."""
        return self.adjusted < LEVEL


def difference(
    units: Units,
    first: NDArray[np.float64],  # [S, U]
    second: NDArray[np.float64],  # [S, U]
) -> PairedDifference:
    """Return the paired difference of two cells.

    Its variance is that over the S seeds plus that over groups of the seeds' mean; t has the degrees of
    freedom of Welch and Satterthwaite. Variance that both share is counted twice, which makes the test
    slightly conservative.
    """
    between = first - second
    num = len(between)
    by_seed = between @ units.weight  # [S]
    value = float(by_seed.mean())
    parts: list[tuple[float, int]] = []
    if num > 1:
        parts.append((float(by_seed.var(ddof=1)) / num, num - 1))
    of_units = units.variance(between.mean(0))
    if not math.isnan(of_units):
        parts.append((of_units, int(units.group.max())))
    variance = math.fsum(part for part, _ in parts)
    if not parts:
        return PairedDifference(value, math.nan, math.nan, 1.0, num, 1.0)
    if variance == 0:
        p = 1.0 if value == 0 else 0.0
        return PairedDifference(value, value, value, p, num, p)
    freedom = variance**2 / math.fsum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half = t_quantile(freedom) * error
    p = t_tail(value / error, freedom)
    return PairedDifference(value, value - half, value + half, p, num, p)


def mean_difference(
    first: NDArray[np.float64],  # [U]
    second: NDArray[np.float64] | float,  # [U]
    group: NDArray[np.int64],  # [U]
) -> PairedDifference:
    """Return the mean paired difference over units of one seed, with the test over their groups."""
    num = len(first)
    units = Units(
        "rows", np.full(num, 1 / num), np.zeros(num, dtype=np.int64), np.unique(group, return_inverse=True)[1]
    )
    return difference(units, first[None], np.broadcast_to(second, num)[None])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979): the chance of any mistake among them."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def t_tail(t: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    mpmath = _mpmath()
    return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True))


@lru_cache(maxsize=4096)
def t_quantile(freedom: float) -> float:
    """Return the two-sided 5 % point of Student's t."""
    low, high = 0.0, 20.0  # 12.7 for one degree of freedom, the least there is
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > LEVEL else (low, middle)
    return high


def _mpmath() -> Any:
    # torch brings mpmath, through sympy; scipy would be a dependency for two functions.
    import mpmath

    return mpmath
