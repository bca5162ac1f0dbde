"""Paradigms: ways to make a reward of a backbone, a head and a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from basereward.losses import Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from basereward import Comparison
    from basereward.backbones.base import Backbone
    from basereward.forest import Forest, Tree
    from basereward.losses import LossOutput


class Prepared(NamedTuple):
    """A comparison and its tokens."""

    comparison: Comparison
    tree: Tree


class Bounded(nn.Module):
    """Rewards between -bound and bound, so that none outweighs all others in reinforcement learning.

    Args:
        backbone: Makes hidden states of comparisons.
        head: Makes rewards of hidden states.
        loss: Compares rewards with ranks.
        bound: The largest reward.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module, *, bound: float = 10.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound is a number > 0, not {bound}")
        self.backbone = backbone
        self.head = head
        self.criterion = loss
        self.bound = bound

    def prepare(self, comparison: Comparison) -> Prepared:
        """Do what the CPU can do ahead."""
        return Prepared(comparison, self.backbone.encode(comparison))

    def rewards(self, forest: Forest) -> Tensor:
        """Return the rewards [N] of a forest's responses, fp32."""
        rewards: Tensor = self.head(self.backbone(forest), forest)
        return self.bound * torch.tanh(rewards / self.bound)

    def loss_of(self, batch: Sequence[Prepared]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        forest = self._forest(batch)
        targets = Targets.of([item.comparison for item in batch], forest.lengths, forest.ends.device)
        output: LossOutput = self.criterion(self.rewards(forest), targets)
        return output

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""
        return self.rewards(self._forest(batch))

    def loss(self, comparisons: Sequence[Comparison]) -> LossOutput:
        """Return the loss of comparisons."""
        return self.loss_of([self.prepare(comparison) for comparison in comparisons])

    def score(self, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the rewards [N] of comparisons, in their order."""
        return self.score_of([self.prepare(comparison) for comparison in comparisons])

    def _forest(self, batch: Sequence[Prepared]) -> Forest:
        return self.backbone.pack([item.tree for item in batch]).to(next(self.head.parameters()).device)
