"""Losses: rewards and what is known of the responses in, one number out.

Shapes: N responses, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.losses import LossOutput
from basereward.ops import pair_statistics
from basereward.protocols import Loss

if TYPE_CHECKING:
    from basereward.losses import Targets


class Focal(Loss, nn.Module):
    """Bradley-Terry that looks away from pairs which are in order already (arXiv 1708.02002, of pairs).

    With p = sigmoid(r_chosen - r_rejected), a pair costs -(1 - p)^gamma log p. Ties have no weight.

    Args:
        gamma: How far it looks away, >= 0; with 0 it is Bradley-Terry.
    """

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma is a finite number >= 0, not {gamma}")
        self.gamma = gamma

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the weighted mean over pairs."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
            chosen, rejected = rewards[targets.pairs].unbind(1)  # [P], [P]
            margin = chosen - rejected
            # (1 - p)^gamma by its logarithm, which stays finite where p rounds to 1.
            cost = -(self.gamma * functional.logsigmoid(-margin)).exp() * functional.logsigmoid(margin)
            weight = torch.ones_like(cost) if targets.weight is None else targets.weight.to(cost.dtype)
            weight = weight * ~targets.tie
            total = weight.sum()
            # Where all weights are zero the loss is zero, not 0 / 0.
            loss = (cost * weight).sum() / torch.where(total > 0, total, 1.0)
            return LossOutput(loss, total, pair_statistics(rewards, targets.pairs, targets.tie, total))
