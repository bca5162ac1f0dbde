"""Paradigms: ways to make a reward of a backbone, a head and a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from basereward.losses import Targets, apply_loss
from basereward.prepared import Prepared, Size
from basereward.protocols import Paradigm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from basereward import Comparison
    from basereward.forest import Forest, Tree
    from basereward.losses import LossOutput
    from basereward.protocols import Backbone, Head, Loss


class Bounded(Paradigm, nn.Module):
    """Rewards between -bound and bound, so that none outweighs all others in reinforcement learning.

    Args:
        backbone: Makes hidden states of comparisons.
        head: Makes rewards of hidden states.
        loss: Compares rewards with ranks.
        bound: The largest reward.
    """

    def __init__(self, backbone: Backbone, head: Head, loss: Loss, *, bound: float = 10.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound is a number > 0, not {bound}")
        self.backbone = backbone
        self.head = head
        self.criterion = loss
        self.bound = bound

    def prepare(self, comparison: Comparison) -> Prepared[Tree]:
        """Do what the CPU can do ahead."""
        tree = self.backbone.encode(comparison)
        return Prepared(comparison, tree, Size(len(tree), tree.num_patches))

    def rewards(self, forest: Forest) -> Tensor:
        """Return the rewards [N] of a forest's responses, fp32."""
        rewards: Tensor = self.head(self.backbone(forest), forest)
        return self.bound * torch.tanh(rewards / self.bound)

    def loss_of(self, batch: Sequence[Prepared[Tree]]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        forest = self._forest(batch)
        targets = Targets.of([item.comparison for item in batch], forest.lengths, forest.ends.device)
        return apply_loss(self.criterion, self.rewards(forest), targets)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Tree]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""
        return self.rewards(self._forest(batch))

    def _forest(self, batch: Sequence[Prepared[Tree]]) -> Forest:
        return self.backbone.pack([item.content for item in batch]).to(next(self.head.parameters()).device)
