"""An accuracy with its 95 % interval, honest about pairs that share a comparison.

Shapes: P pairs, K comparisons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, and its 95 % interval over the population of such comparisons.

    Attributes:
        value: The share itself, 0 to 1.
        low: Lower end.
        high: Upper end.
        num_pairs: Units of the share: pairs, or comparisons for top-1 accuracy.
        num_effective: Effective sample size: the number of independent pairs; at most `num_pairs`.
    """

    value: float
    low: float
    high: float
    num_pairs: int
    num_effective: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def to_dict(self) -> dict[str, float]:
        """Return the interval for a report: accuracy, low, high, num_pairs, num_effective."""
        return {
            "accuracy": self.value,
            "low": self.low,
            "high": self.high,
            "num_pairs": self.num_pairs,
            "num_effective": self.num_effective,
        }


def interval_of(
    unit_scores: NDArray[np.float64],  # [P] 1 right, 0 wrong, 0.5 undecided
    group: NDArray[np.int64],  # [P] which comparison each pair is of, in any numbering
) -> Interval:
    """Return the mean unit score with its Wilson interval.

    The n of Wilson's formula is the effective number of pairs, P / deff. Pairs of one comparison share a
    prompt, an image and responses, so that N of them say less than N pairs of N comparisons. With m_k pairs
    of comparison k, c_k the sum of their scores and p = sum c / P, the design effect is the variance with
    comparisons as the independent units, over the variance with pairs as such:

        deff = max(1,  K / (K - 1) * sum (c_k - p m_k)^2 / P^2  /  (p (1 - p) / P))

    Where all pairs are right, or all wrong, or of one comparison, the correlation within one can't be
    estimated; it is then taken to be 1, which makes the effective number P^2 / sum m_k^2.

    Raises:
        ValueError: When there is no pair.
    """
    num_pairs = len(unit_scores)
    if num_pairs == 0:
        raise ValueError("an interval needs at least one pair")
    _, member, sizes = np.unique(group, return_inverse=True, return_counts=True)  # [P], [K]
    value = float(unit_scores.mean())
    num_groups = len(sizes)
    simple = value * (1 - value) / num_pairs
    if num_groups == 1 or simple == 0:
        num_effective = num_pairs**2 / float((sizes.astype(np.float64) ** 2).sum())
    else:
        won = np.bincount(member, weights=unit_scores, minlength=num_groups)  # [K]
        spread = float(((won - value * sizes) ** 2).sum())
        clustered = num_groups / (num_groups - 1) * spread / num_pairs**2
        num_effective = num_pairs / max(1.0, clustered / simple)
    low, high = wilson(value, num_effective)
    return Interval(value, low, high, num_pairs, num_effective)


def wilson(value: float, num: float) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval of a share `value` of `num` independent trials."""
    scale = 1 + Z**2 / num
    centre = (value + Z**2 / (2 * num)) / scale
    half = Z / scale * math.sqrt(value * (1 - value) / num + Z**2 / (4 * num**2))
    # Rounding may push an end past the share itself, when that is 0 or 1.
    return max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))
