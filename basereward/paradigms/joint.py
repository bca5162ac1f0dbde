"""The joint paradigm: the responses of a comparison in one sequence, in which each sees the ones before it.

As "You Only Judge Once" has it (arXiv 2604.10966). Shapes: N responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, combinations

import torch
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache
from basereward.forest.forest import Tree
from basereward.losses import LossOutput, Targets
from basereward.paradigms.scalar import Scalar
from basereward.prepared import Encoded, Prepared
from basereward.protocols import Backbone, Head, Loss

Order = Sequence[int]
"""The numbers of a comparison's responses in the order in which they stand in the sequence."""


class Joint(Scalar):
    """Backbone, head, and a loss on rewards that are read at the responses' ends in one causal sequence.

    Prompt and responses stand one behind the other, each response with what the chat template writes after
    it, and a token sees all that is before it. So a reward depends on the responses before its own, and on
    their order. It costs as many tokens as a forest, and more of attention.

    In training each comparison's order is drawn anew. Scores are the mean over the given order and its
    reverse; `order_consistency` is the share of pairs whose rewards have the same order, unequal, in both.

    Args:
        backbone: Makes hidden states of comparisons.
        head: Makes rewards of hidden states.
        loss: Compares rewards with ranks.
        both_orders: Whether responses are scored in both orders, which costs two passes.
    """

    is_comparative = True
    shares_backbone = False
    shares_prefix = False
    uses_all_weights = Scalar.uses_all_weights  # its loss reaches what a forest's reaches

    def __init__(self, backbone: Backbone, head: Head, loss: Loss, *, both_orders: bool = True) -> None:
        super().__init__(backbone, head, loss)
        self.both_orders = both_orders
        self._num_pairs = self._num_consistent = 0

    @property
    def statistics(self) -> Mapping[str, float]:
        """`order_consistency`, and of how many pairs it is, `order_pairs`; nothing before two orders."""
        if not self._num_pairs:
            return {}
        share = self._num_consistent / self._num_pairs
        return {"order_consistency": share, "order_pairs": float(self._num_pairs)}

    def attach_feature_cache(self, cache: FeatureCache, precision: str = "weights") -> None:
        """Cache the features of images that frozen weights compute; hidden states depend on the order."""
        self.backbone.attach_feature_cache(cache, precision)
        self.train(self.training)

    def loss_of(self, batch: Sequence[Prepared[Encoded]]) -> LossOutput:
        """Return the loss of prepared comparisons; in training their responses stand in orders drawn at
        random, in evaluation in the given ones.
        """
        targets = Targets.of([item.comparison for item in batch], device=self.device)
        sizes = [len(item.comparison.responses) for item in batch]
        draw = torch.randperm if self.training else torch.arange
        orders = [draw(size).tolist() for size in sizes]
        rewards, lengths = self._rewards_in(batch, orders)
        return self.criterion(rewards, replace(targets, lengths=lengths))

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Encoded]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""
        orders = [range(len(item.comparison.responses)) for item in batch]
        rewards, _ = self._rewards_in(batch, orders)
        if not self.both_orders or all(len(order) == 1 for order in orders):
            return rewards
        turned, _ = self._rewards_in(batch, [order[::-1] for order in orders])
        sizes = list(map(len, orders))
        for first, second in zip(rewards.split(sizes), turned.split(sizes), strict=True):
            for one, other in combinations(range(len(first)), 2):
                self._num_pairs += 1
                margins = (first[one] - first[other]) * (second[one] - second[other])
                self._num_consistent += int(margins > 0)
        return (rewards + turned) / 2

    def _rewards_in(
        self, batch: Sequence[Prepared[Encoded]], orders: Sequence[Order]
    ) -> tuple[Tensor, Tensor]:
        """Return rewards and lengths [N] in the order of the responses, computed in other orders."""
        trees = [item.content.tree for item in batch]
        chains = [chained(tree, order) for tree, order in zip(trees, orders, strict=True) if tree is not None]
        forest = self.packed(chains)
        rewards = self.rewards_of(self.backbone(forest), forest)
        starts = accumulate(map(len, orders), initial=0)
        places = [
            start + place for start, order in zip(starts, orders, strict=False) for place in inverse(order)
        ]
        index = torch.tensor(places, device=rewards.device)
        return rewards[index], forest.lengths[index]


def chained(tree: Tree, order: Order) -> Tree:
    """Return a tree whose only branch has all responses, one behind the other, each read at its end."""
    responses = [tree.responses[number] for number in order]
    ends = [stop - 1 for stop in accumulate(map(len, responses))]
    ids = [token for response in responses for token in response]
    return replace(tree, responses=[ids], leads=[tree.all_leads[order[0]]], reads=[ends])


def inverse(order: Order) -> list[int]:
    """Return the place of each number in an order."""
    places = [0] * len(order)
    for place, number in enumerate(order):
        places[number] = place
    return places
