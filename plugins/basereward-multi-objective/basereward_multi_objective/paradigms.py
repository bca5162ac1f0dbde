"""Paradigms that train heads on more than which response is better.

Letters: N responses, P pairs, A attributes.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from basereward.errors import ConfigError, DataError
from basereward.losses import LossOutput, Targets
from basereward.ops import pair_statistics

if TYPE_CHECKING:
    from basereward import Comparison
    from basereward.backbones.base import Backbone
    from basereward.forest import Forest, Tree
    from basereward_multi_objective.heads import MeanAndVariance

KEY = "attributes"
"""Where a comparison's `meta` has ratings: for each response a table of numbers by attribute, or null."""


class Prepared(NamedTuple):
    """A comparison, its tokens, and the ratings of its responses."""

    comparison: Comparison
    tree: Tree
    ratings: Tensor  # [N, A], not-a-number where unknown


class OfTrees(nn.Module, abc.ABC):
    """Base of paradigms that score with one pass over comparisons' trees."""

    backbone: Backbone
    head: Any
    attributes: tuple[str, ...] = ()

    def prepare(self, comparison: Comparison) -> Prepared:
        """Do what the CPU can do ahead.

        Raises:
            DataError: When the comparison can't be encoded, or its ratings are no numbers.
        """
        return Prepared(comparison, self.backbone.encode(comparison), _ratings(comparison, self.attributes))

    def size_of(self, prepared: Prepared) -> tuple[int, int]:
        """Return the tokens that a prepared comparison takes in a forest, and the patches of its pictures."""
        tree = prepared.tree
        num_prompts = 1 if self.backbone.shares else len(tree.responses)
        return len(tree) + (num_prompts - 1) * len(tree.prompt), num_prompts * tree.num_patches

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""
        rewards: Tensor = self.head(*self.encoded(batch))
        return rewards

    def score(self, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the rewards [N] of comparisons, in their order."""
        return self.score_of([self.prepare(comparison) for comparison in comparisons])

    def loss(self, comparisons: Sequence[Comparison]) -> LossOutput:
        """Return the loss of comparisons."""
        return self.loss_of([self.prepare(comparison) for comparison in comparisons])

    @abc.abstractmethod
    def loss_of(self, batch: Sequence[Prepared]) -> LossOutput:
        """Return the loss of prepared comparisons."""

    def encoded(self, batch: Sequence[Prepared]) -> tuple[Tensor, Forest]:
        """Return the hidden states [B, L, D] of prepared comparisons, and where they are."""
        forest = self.backbone.pack([item.tree for item in batch])
        forest = forest.to(next(self.head.parameters()).device)
        return self.backbone(forest), forest


class MultiObjective(OfTrees):
    """Trains a `gated` head on ratings of attributes and on which response is better.

    The loss of the rewards, plus `attribute_weight` times the mean squared distance of the attributes'
    rewards from their ratings (arXiv 2311.09528), over the ratings that there are; a comparison without
    ratings teaches the gate alone, since pairs move nothing but the gate if `detach_ratings` is set.

    Args:
        backbone: Makes hidden states of comparisons.
        head: `gated`, or any head with `attributes`, `ratings` and `weights` like its own.
        loss: Compares rewards with ranks.
        attribute_weight: How much the ratings count beside the loss of rewards.
        detach_ratings: Whether pairs teach the gate alone, as in ArmoRM (arXiv 2406.12845, section 3.2), and
            ratings all else.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        loss: nn.Module,
        *,
        attribute_weight: float = 1.0,
        detach_ratings: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= attribute_weight < float("inf"):
            raise ValueError(f"attribute_weight is a finite number >= 0, not {attribute_weight}")
        if not all(hasattr(head, name) for name in ("attributes", "ratings", "weights")):
            raise ConfigError(f"multi-objective needs the head gated, not {type(head).__name__}")
        self.backbone = backbone
        self.head: Any = head
        self.criterion = loss
        self.attributes = head.attributes  # type: ignore[assignment]
        self.attribute_weight = attribute_weight
        self.detach_ratings = detach_ratings

    def loss_of(self, batch: Sequence[Prepared]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        hidden, forest = self.encoded(batch)
        comparisons = [item.comparison for item in batch]
        targets = Targets.of(comparisons, forest.lengths, forest.ends.device)
        ratings, weights = self.head.ratings(hidden, forest), self.head.weights(hidden, forest)
        used = ratings.detach() if self.detach_ratings else ratings
        output: LossOutput = self.criterion((used * weights).sum(1), targets)
        wanted = torch.cat([item.ratings for item in batch]).to(ratings.device)
        known = ~wanted.isnan()
        squares = torch.where(known, ratings - wanted.nan_to_num(), 0.0).square()
        # The mean over what is known of a response, so that one with five ratings counts as one with one.
        cost = squares.sum(1) / known.sum(1).clamp(min=1)  # [N]
        if targets.comparison_weight is not None:
            cost = cost * targets.comparison_weight[targets.group]
        # Over the same denominator as the rewards' loss, so that loss * weight adds up over batches.
        total = cost.sum() / torch.where(output.weight > 0, output.weight, 1.0)
        return replace(output, loss=output.loss + self.attribute_weight * total)

    @torch.no_grad()
    def explain(self, comparison: Comparison) -> list[dict[str, Any]]:
        """Return for each response its reward, and each attribute's reward and weight that make it."""
        hidden, forest = self.encoded([self.prepare(comparison)])
        ratings = self.head.ratings(hidden, forest).tolist()
        weights = self.head.weights(hidden, forest).tolist()
        return [
            {
                "reward": math.fsum(map(float.__mul__, rating, weight)),
                "ratings": dict(zip(self.attributes, rating, strict=True)),
                "weights": dict(zip(self.attributes, weight, strict=True)),
            }
            for rating, weight in zip(ratings, weights, strict=True)
        ]


class UncertainReward(OfTrees):
    """Trains an `uncertain` head: the chosen response is better with the probability that its draw is larger.

    With means m and variances v of both responses, a pair costs

        -log Phi((m_c - m_r) / sqrt(v_c + v_r)),

    Phi being the normal distribution function (arXiv 2403.05171, section 3). Pairs that contradict each other
    raise the variance of what they are about, instead of pulling its mean to and fro. Ties have no weight.

    Args:
        backbone: Makes hidden states of comparisons.
        head: `uncertain`, or any head with a `distribution` like its own.
        loss: Not used: the probability of a pair needs variances, too.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        if not hasattr(head, "distribution"):
            raise ConfigError(f"uncertain needs the head uncertain, not {type(head).__name__}")
        self.backbone = backbone
        self.head: Any = head

    def loss_of(self, batch: Sequence[Prepared]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        hidden, forest = self.encoded(batch)
        targets = Targets.of([item.comparison for item in batch], device=forest.ends.device)
        mean, variance = self.head.distribution(hidden, forest)
        chosen, rejected = targets.pairs.unbind(1)
        spread = (variance[chosen] + variance[rejected]).sqrt()
        cost = -log_ndtr((mean[chosen] - mean[rejected]) / spread)  # [P]
        weight = torch.ones_like(cost) if targets.weight is None else targets.weight.to(cost.dtype)
        weight = weight * ~targets.tie
        total = weight.sum()
        loss = (cost * weight).sum() / torch.where(total > 0, total, 1.0)
        rewards = self.head(hidden, forest)
        return LossOutput(loss, total, pair_statistics(rewards, targets.pairs, targets.tie, total))

    @torch.no_grad()
    def distribution(self, comparison: Comparison) -> MeanAndVariance:
        """Return the mean and the variance of each response's reward."""
        found: MeanAndVariance = self.head.distribution(*self.encoded([self.prepare(comparison)]))
        return found


def _ratings(comparison: Comparison, attributes: Sequence[str]) -> Tensor:  # [N, A]
    """Return the ratings of a comparison's responses.

    Raises:
        DataError: When they are no table or null for each response, or one of them is no finite number.
    """
    num = len(comparison.responses)
    tables = comparison.meta.get(KEY)
    if tables is None:
        return torch.full((num, len(attributes)), torch.nan)
    is_list = isinstance(tables, list | tuple) and len(tables) == num
    if not is_list or not all(table is None or isinstance(table, Mapping) for table in tables):
        raise DataError(
            f"a list of {num} tables is needed, of numbers by attribute, or null; not {tables!r:.80}",
            field=f"meta.{KEY}",
        )
    rows = []
    for number, table in enumerate(tables):
        row = []
        for name in attributes:
            value = (table or {}).get(name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and math.isfinite(value)):
                raise DataError(
                    f"a finite number is needed, not {value!r}", field=f"meta.{KEY}[{number}].{name}"
                )
            row.append(math.nan if value is None else float(value))
        rows.append(row)
    return torch.tensor(rows).reshape(num, len(attributes))
