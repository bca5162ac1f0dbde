"""The scales of an ensemble's members: measured, and watched, since a mean of other scales is no mean.

Shapes: M members, N responses.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.ensemblers import centred, margins, scales
from basereward.errors import ScaleWarning
from basereward.media.limits import is_number

MAX_SCALE_RATIO = 10.0
"""The largest ratio of two members' scales without a warning."""

NUM_FREE = 8
"""Degrees of freedom, responses less comparisons, of which a member's scale is estimated before that."""


@dataclass(frozen=True)
class MemberStatistics:
    """Statistics of a member on the comparisons that an ensemble was fitted on.

    Attributes:
        mean: Of its rewards.
        scale: Their standard deviation within comparisons.
        accuracy: Share of pairs that it has in order, equal rewards counting half.
    """

    mean: float
    scale: float
    accuracy: float

    @classmethod
    def of(cls, rewards: Tensor, comparisons: Sequence[Comparison]) -> MemberStatistics | None:
        """Return what a member with rewards [1, N] is like, on the comparisons that it was asked about; None
        where there is none.
        """
        sizes = [len(comparison.responses) for comparison in comparisons]
        scored = [
            (row, values)
            for row, values in zip(comparisons, torch.split(rewards.double(), sizes, 1), strict=True)
            if not bool(values.isnan().any())
        ]
        if not scored:
            return None
        rows, values = [row for row, _ in scored], torch.cat([values for _, values in scored], 1)
        accuracy = (margins(values, rows).sign() / 2 + 0.5).mean()
        return cls(float(values.mean()), float(scales(values, rows)[0]), float(accuracy))


class ScaleMonitor:
    """Estimates the members' scales as rewards come by, and warns once when they are far apart."""

    def __init__(self, names: Sequence[str], ensembler: str) -> None:
        self.names = names
        self.ensembler = ensembler
        self._squares = torch.zeros(len(names), dtype=torch.float64)
        self._num_free = torch.zeros(len(names), dtype=torch.float64)

    def add(self, members: Tensor, comparisons: Sequence[Comparison]) -> bool:
        """Take rewards [M, N]; return whether there was reason to warn."""
        deviations = centred(members, comparisons)
        self._squares += deviations.nan_to_num().square().sum(1)
        sizes = [len(comparison.responses) for comparison in comparisons]
        free = torch.tensor([1 - 1 / size for size in sizes for _ in range(size)], dtype=torch.float64)
        self._num_free += (deviations.isfinite() * free).sum(1)
        is_estimated = self._num_free >= NUM_FREE
        scale = (self._squares / self._num_free).sqrt()
        if not bool(is_estimated.all()):
            return False
        return _warn(dict(zip(self.names, scale.tolist(), strict=True)), self.ensembler, "within comparisons")


def warn_of_saved_scales(records: Mapping[str, Mapping[str, Any]], ensembler: str) -> None:
    """Warn where the members' validations had rewards on different scales; without a word where one has none.

    Args:
        records: The members' records, by their names.
        ensembler: The ensembler's name.
    """
    deviations = {
        name: (record.get("evaluation") or {}).get("reward_std") for name, record in records.items()
    }
    scales_of = {name: float(value) for name, value in deviations.items() if is_number(value) and value > 0}
    if len(scales_of) == len(deviations):
        _warn(scales_of, ensembler, "in each one's validation")


def warn_of_units(units: Mapping[str, str], ensembler: str) -> None:
    """Warn where some members' rewards are bounded, as a judge's are, and others' are not, or otherwise.

    Args:
        units: The members' `reward_unit`, by their names.
        ensembler: The ensembler's name.
    """
    if len(set(units.values())) < 2:
        return
    each = "; ".join(f"{name}: {unit or 'unbounded'}" for name, unit in units.items())
    warnings.warn(
        f"the members' rewards have different units ({each}), and {ensembler!r} takes them as they are; "
        "z-mean, rank-mean and stacked count all alike",
        ScaleWarning,
        stacklevel=3,
    )


def _warn(scale_of: Mapping[str, float], ensembler: str, where: str) -> bool:
    """Warn of scales that differ too much, and tell whether they do."""
    if max(scale_of.values()) <= MAX_SCALE_RATIO * min(scale_of.values()):
        return False
    each = ", ".join(f"{name} {value:.3g}" for name, value in scale_of.items())
    largest = max(scale_of, key=lambda name: scale_of[name])
    warnings.warn(
        f"the members' rewards are on different scales, so that under {ensembler!r} those of {largest} "
        f"decide (standard deviation {where}: {each}); z-mean, rank-mean and stacked count all alike",
        ScaleWarning,
        stacklevel=3,
    )
    return True
