"""Sums that the metrics of a step or of many are made of, in one tensor and one transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from basereward.losses import STATISTICS, LossOutput

EXTREMES = {STATISTICS.index("min"): min, STATISTICS.index("max"): max}


def row_of(output: LossOutput) -> Tensor:  # [2 + S] fp64
    """Return the sum of losses, the weight and the statistics of one forward pass, on its device."""
    weight = output.weight.detach().double()
    loss = output.loss.detach().double() * weight
    return torch.cat([torch.stack([loss, weight]), output.sums])


def joined(rows: Sequence[Tensor]) -> Tensor:  # [2 + S] each, and together
    """Return the row of several forward passes together, on their device."""
    stacked = torch.stack(list(rows))
    found = stacked.sum(0)
    for place, join in EXTREMES.items():
        found[2 + place] = (torch.amin if join is min else torch.amax)(stacked[:, 2 + place], 0)
    return found


def row_of_nothing(device: torch.device) -> Tensor:  # [2 + S] fp64
    """Return the row of no forward pass at all."""
    found = torch.zeros(2 + len(STATISTICS), dtype=torch.float64, device=device)
    for place, join in EXTREMES.items():
        found[2 + place] = float("inf") if join is min else float("-inf")
    return found


class Window:
    """The sums since the last record of the log.

    Args:
        sums: Of a checkpoint; None at the start.
    """

    def __init__(self, sums: Sequence[float] | None = None) -> None:
        self.sums = list(sums) if sums else []

    def add(self, row: Sequence[float]) -> None:
        """Add one forward pass."""
        if not self.sums:
            self.sums = list(row)
            return
        joins = {2 + place: join for place, join in EXTREMES.items()}
        self.sums = [
            joins[place](old, new) if place in joins else old + new
            for place, (old, new) in enumerate(zip(self.sums, row, strict=True))
        ]

    def metrics(self) -> dict[str, float]:
        """Return loss, accuracy, margin and mean rewards; what there was no pair for is NaN."""
        loss, weight, *rest = self.sums
        sums = dict(zip(STATISTICS, rest, strict=True))
        return {
            "loss": _ratio(loss, weight),
            **{name: _ratio(sums[key], sums["pairs"]) for name, key in _MEANS.items()},
            "reward_min": sums["min"],
            "reward_max": sums["max"],
            "num_pairs": sums["pairs"],
        }


_MEANS = {"accuracy": "correct", "margin": "margin", "reward_chosen": "chosen", "reward_rejected": "rejected"}


def _ratio(value: float, count: float) -> float:
    return value / count if count else float("nan")
