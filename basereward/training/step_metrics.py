"""Metric sums of a step or of many: one tensor, and one transfer from the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from basereward.losses import STATISTICS, LossOutput

EXTREMES = {STATISTICS.index("min"): min, STATISTICS.index("max"): max}


def sums_of(output: LossOutput) -> Tensor:  # [2 + S] fp64
    """Return the summed loss, the weight and the statistics of one forward pass, on its device."""
    weight = output.weight.detach().double()
    loss = output.loss.detach().double() * weight
    return torch.cat([torch.stack([loss, weight]), output.sums])


def combined_sums(sums: Sequence[Tensor]) -> Tensor:  # [2 + S] each -> [2 + S]
    """Return the sums of several forward passes together, on their device."""
    stacked = torch.stack(list(sums))
    combined = stacked.sum(0)
    for index, extreme in EXTREMES.items():
        reduce = torch.amin if extreme is min else torch.amax
        combined[2 + index] = reduce(stacked[:, 2 + index], 0)
    return combined


def empty_sums(device: torch.device) -> Tensor:  # [2 + S] fp64
    """Return the sums of no forward pass."""
    sums = torch.zeros(2 + len(STATISTICS), dtype=torch.float64, device=device)
    for index, extreme in EXTREMES.items():
        sums[2 + index] = float("inf") if extreme is min else float("-inf")
    return sums


class MetricSums:
    """The sums since the last record of the log.

    Args:
        sums: The sums of a checkpoint; None at the start.
    """

    def __init__(self, sums: Sequence[float] | None = None) -> None:
        self.sums = list(sums) if sums else []

    def add(self, sums: Sequence[float]) -> None:
        """Add the sums of a step, in the order of `sums_of`."""
        if not self.sums:
            self.sums = list(sums)
            return
        extremes = {2 + index: extreme for index, extreme in EXTREMES.items()}
        self.sums = [
            extremes[index](old, new) if index in extremes else old + new
            for index, (old, new) in enumerate(zip(self.sums, sums, strict=True))
        ]

    def metrics(self) -> dict[str, float]:
        """Return loss, accuracy, margin and mean rewards; means over no pair are NaN."""
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
