"""Paradigms that train heads on more than which response is better.

Shapes: B rows, L tokens a row, D width, N responses, P pairs, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from basereward.errors import ConfigError
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.ops import pair_statistics
from basereward.paradigms.scalar import Scalar
from basereward_multi_objective.ratings import ratings_of

if TYPE_CHECKING:
    from basereward import Comparison
    from basereward.backbones.base import Backbone
    from basereward.prepared import Encoded, Prepared
    from basereward_multi_objective.heads import MeanAndVariance


class MultiObjective(Scalar):
    """Trains a `gated` head on ratings of attributes and on which response is better.

    A batch costs what `loss` makes of its rewards, summed, and for each response `attribute_weight` times the
    mean squared distance of its attributes from those ratings that it has (arXiv 2311.09528), 0 where it has
    none; all that is divided by the number of responses.

    Args:
        backbone: Makes hidden states of comparisons.
        head: `gated`, or any head with `attributes`, `ratings`, `weights` and `reward` like its own.
        loss: Compares rewards with ranks.
        attribute_weight: How much the ratings count beside the loss of rewards.
        detach_ratings: Whether ranks teach the gate and nothing else, as in ArmoRM (arXiv 2406.12845), and
            ratings all but the gate.
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
        super().__init__(backbone, head, loss)
        if not 0 <= attribute_weight < float("inf"):
            raise ValueError(f"attribute_weight is a finite number >= 0, not {attribute_weight}")
        if not all(hasattr(head, name) for name in ("attributes", "ratings", "weights", "reward")):
            raise ConfigError(f"multi-objective needs the head gated, not {type(head).__name__}")
        self.attribute_weight = attribute_weight
        self.detach_ratings = detach_ratings

    def prepare(self, comparison: Comparison) -> Prepared[Encoded]:
        """Do what the CPU can do ahead.

        Raises:
            DataError: When the comparison can't be encoded, or its ratings are no numbers.
        """
        ratings_of(comparison, self.head.attributes)  # here, where an error is one of the row
        return super().prepare(comparison)

    def loss_of(self, batch: Sequence[Prepared[Encoded]]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        hidden, forest = self.hidden_states(batch)
        comparisons = [item.comparison for item in batch]
        targets = Targets.of(comparisons, forest.lengths, forest.ends.device)
        ratings = self.head.ratings(hidden, forest)  # [N, A]
        if self.detach_ratings:
            weights = self.head.weights(hidden.detach(), forest)
            rewards = self.head.reward(ratings.detach(), weights)
        else:
            rewards = self.head.reward(ratings, self.head.weights(hidden, forest))
        wanted = torch.cat([ratings_of(row, self.head.attributes) for row in comparisons]).to(ratings.device)
        known = ~wanted.isnan()
        squares = torch.where(known, ratings - wanted.nan_to_num(), 0.0).square()
        cost = squares.sum(1) / known.sum(1).clamp(min=1)  # [N]
        return _with_costs(
            apply_loss(self.criterion, rewards, targets), self.attribute_weight * cost, targets
        )

    @torch.no_grad()
    def decorrelate(self, comparisons: Sequence[Comparison], attribute: str) -> None:
        """Take out of all other attributes what goes with one of them, such as verbosity; see `Gated`.

        Raises:
            ValueError: When there is no such attribute, or it is the same for all responses.
        """
        with self.evaluating():
            found = [self.head.ratings(*self.hidden_states([self.prepare(row)])) for row in comparisons]
        self.head.decorrelate(torch.cat(found), attribute)

    @torch.no_grad()
    def explain(self, comparison: Comparison) -> list[dict[str, Any]]:
        """Return for each response its reward, and by attribute what the head takes its rating for, and the
        gate's weight.
        """
        with self.evaluating():
            hidden, forest = self.hidden_states([self.prepare(comparison)])
            ratings, weights = self.head.ratings(hidden, forest), self.head.weights(hidden, forest)
            rewards = self.head.reward(ratings, weights)
        names = self.head.attributes
        return [
            {
                "reward": reward,
                "ratings": dict(zip(names, rating, strict=True)),
                "weights": dict(zip(names, weight, strict=True)),
            }
            for reward, rating, weight in zip(
                rewards.tolist(), ratings.tolist(), weights.tolist(), strict=True
            )
        ]


class UncertainReward(Scalar):
    """Trains an `uncertain` head: the chosen response is better with the probability that its draw is larger.

    With means m and variances v, a pair of responses costs

        -log Phi((m_c - m_r) / sqrt(v_c + v_r)),

    Phi being the normal distribution function (Thurstone 1927). Pairs that contradict each other
    raise the variance of what they are about, instead of pulling its mean to and fro. Ties have no weight.

    With `rating_weight` w, and for a response with the rating y, each response costs besides

        w ((y - m)^2 / v + log v) / 2,

    the Gaussian negative log-likelihood of its rating, and all is divided by the number of responses. That
    settles the scale and the zero of the means, which pairs leave open.

    Args:
        backbone: Makes hidden states of comparisons.
        head: `uncertain`, or any head with a `distribution` like its own.
        loss: Not used: the probability of a pair needs variances, too.
        rating_weight: How much ratings count beside pairs.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, loss: nn.Module, *, rating_weight: float = 0.0
    ) -> None:
        super().__init__(backbone, head, loss)
        if not 0 <= rating_weight < float("inf"):
            raise ValueError(f"rating_weight is a finite number >= 0, not {rating_weight}")
        if not hasattr(head, "distribution"):
            raise ConfigError(f"uncertain needs the head uncertain, not {type(head).__name__}")
        self.rating_weight = rating_weight

    def loss_of(self, batch: Sequence[Prepared[Encoded]]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        hidden, forest = self.hidden_states(batch)
        targets = Targets.of([item.comparison for item in batch], device=forest.ends.device)
        mean, variance = self.head.distribution(hidden, forest)
        chosen, rejected = targets.pairs.unbind(1)
        spread = (variance[chosen] + variance[rejected]).sqrt()
        cost = -log_ndtr((mean[chosen] - mean[rejected]) / spread)  # [P]
        weight = torch.ones_like(cost) if targets.weight is None else targets.weight
        weight = weight * ~targets.tie
        total = weight.sum()
        loss = (cost * weight).sum() / torch.where(total > 0, total, 1.0)
        rewards = self.head.reward(mean, variance)
        output = LossOutput(loss, total, pair_statistics(rewards, targets.pairs, targets.tie, total))
        if not self.rating_weight:
            return output
        ratings = torch.full_like(mean, torch.nan) if targets.ratings is None else targets.ratings
        known = ~ratings.isnan()
        squares = torch.where(known, ratings - mean, 0.0).square()
        unlikely = torch.where(known, squares / variance + variance.log(), 0.0) / 2  # [N]
        return _with_costs(output, self.rating_weight * unlikely, targets)

    @torch.no_grad()
    def distribution(self, comparison: Comparison) -> MeanAndVariance:
        """Return the mean and the variance of each response's reward, [N] each."""
        with self.evaluating():
            found: MeanAndVariance = self.head.distribution(*self.hidden_states([self.prepare(comparison)]))
        return found


def _with_costs(output: LossOutput, cost: Tensor, targets: Targets) -> LossOutput:  # cost [N]
    """Return a loss with costs of responses added, as the mean over responses.

    A loss of pairs has no weight where all pairs are ties; over responses, loss * weight adds up over batches
    whatever is in them.
    """
    weight = torch.ones_like(cost)
    if targets.comparison_weight is not None:
        weight = targets.comparison_weight[targets.group]
    total = weight.sum()
    summed = output.loss * output.weight + (cost * weight).sum()
    return replace(output, loss=summed / torch.where(total > 0, total, 1.0), weight=total)
