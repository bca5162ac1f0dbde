"""Losses of rewards on pairs, rankings or ratings: Bradley-Terry, hinge, Plackett-Luce, regression, binary.

Shapes: N responses, P pairs, C comparisons. Every loss computes in fp32 (fp64 for fp64 rewards), under
autocast too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward import ops
from basereward.comparison import Comparison
from basereward.errors import DataError, PluginError
from basereward.hardware.transfer import moved
from basereward.ops import STATISTICS
from basereward.protocols import Loss

__all__ = [
    "STATISTICS",
    "BinaryCrossEntropy",
    "BradleyTerry",
    "Hinge",
    "LossOutput",
    "PlackettLuce",
    "Regression",
    "Targets",
    "apply_loss",
    "weighted_mean",
]


@dataclass(frozen=True)
class Targets:
    """The labels of one batch, whose comparisons' responses are numbered through."""

    pairs: Tensor  # [P, 2] int64: chosen, rejected
    tie: Tensor  # [P] bool
    ranks: Tensor  # [N] fp64, smaller is better; compare within a comparison only
    group: Tensor  # [N] int64: the comparison a response belongs to
    num_comparisons: int
    margin: Tensor | None = None  # [P] fp32 differences of ratings, 0 where unknown; None: all unknown
    weight: Tensor | None = None  # [P] fp32; None: all 1
    comparison_weight: Tensor | None = None  # [C] fp32; None: all 1
    ratings: Tensor | None = None  # [N] fp32, NaN where unknown; None: all unknown
    lengths: Tensor | None = None  # [N] int64, tokens

    @classmethod
    def of(
        cls,
        comparisons: Sequence[Comparison],
        lengths: Iterable[int] | Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Targets:
        """Return the targets of comparisons.

        A pair has the weight of its comparison, so a comparison of more responses counts more.

        Args:
            comparisons: The comparisons of a batch, in the order of the rewards.
            lengths: Tokens of each response [N], for losses that normalize by length.
            device: Where the rewards are.

        Raises:
            DataError: When a comparison has no ranks.
        """
        pairs: list[tuple[int, int]] = []
        tie: list[bool] = []
        margin: list[float | None] = []
        weight: list[float] = []
        ranks: list[float] = []
        group: list[int] = []
        ratings: list[float] = []
        for number, comparison in enumerate(comparisons):
            first = len(ranks)
            for pair in comparison.pairs():
                pairs.append((first + pair.chosen, first + pair.rejected))
                tie.append(pair.tie)
                margin.append(pair.margin)
                weight.append(comparison.weight)
            num_responses = len(comparison.responses)
            ranks += comparison.ranks or ()
            ratings += comparison.ratings or [float("nan")] * num_responses
            group += [number] * num_responses
        comparison_weight = [comparison.weight for comparison in comparisons]
        has_margin = any(value is not None for value in margin)
        has_ratings = any(comparison.ratings is not None for comparison in comparisons)
        is_weighted = any(value != 1 for value in comparison_weight)
        known_margin = [value or 0.0 for value in margin]

        def place(values: Sequence[object], dtype: torch.dtype) -> Tensor:
            return moved(torch.tensor(values, dtype=dtype), torch.device(device or "cpu"))

        return cls(
            pairs=place(pairs, torch.int64).reshape(-1, 2),
            tie=place(tie, torch.bool),
            ranks=place(ranks, torch.float64),
            group=place(group, torch.int64),
            num_comparisons=len(comparisons),
            margin=place(known_margin, torch.float32) if has_margin else None,
            weight=place(weight, torch.float32) if is_weighted else None,
            comparison_weight=place(comparison_weight, torch.float32) if is_weighted else None,
            ratings=place(ratings, torch.float32) if has_ratings else None,
            lengths=None if lengths is None else torch.as_tensor(lengths, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True)
class LossOutput:
    """A loss, its weight and statistics; `loss * weight` and all `sums` but min and max add up over
    batches."""

    loss: Tensor  # [] the weighted mean
    weight: Tensor  # [] its denominator
    sums: Tensor  # [9] fp64, in the order of STATISTICS, detached


def apply_loss(loss: Loss, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
    """Return the output of a loss, of one that returns a bare tensor too.

    Such a tensor is the mean over pairs [], weights included, or the cost of each pair [P], of which the
    weighted mean is taken. Ties have no weight, unless the loss has `learns_from_ties`.

    Raises:
        PluginError: When the loss returns something else.
    """
    output: object = loss(rewards, targets)
    if isinstance(output, LossOutput):
        return output
    num_pairs = len(targets.pairs)
    if not isinstance(output, Tensor) or output.shape not in ((), (num_pairs,)):
        shape = f" of shape {list(output.shape)}" if isinstance(output, Tensor) else ""
        raise PluginError(
            f"loss {type(loss).__name__} returned a {type(output).__name__}{shape}; return a LossOutput, or "
            f"a tensor: the mean over pairs [], or the cost of each of the {num_pairs} pairs [{num_pairs}]"
        )
    with torch.autocast(rewards.device.type, enabled=False):
        rewards = _upcast(rewards)
        weight = targets.tie.new_ones(num_pairs, dtype=rewards.dtype)  # [P]
        if targets.weight is not None:
            weight = targets.weight.to(rewards.dtype)
        if not loss.learns_from_ties:
            weight = weight * ~targets.tie
        if output.dim():
            return weighted_mean(output, weight, rewards, targets)
        total = weight.sum()
        return LossOutput(output, total, ops.pair_statistics(rewards, targets.pairs, targets.tie, total))


class BradleyTerry(Loss, nn.Module):
    """The Bradley-Terry loss: -log P(the chosen response beats the rejected one), arXiv 2509.16127, eq. 1.

    With all options, for a pair of rewards r_c and r_r with e = `label_smoothing` and z = `zero_coefficient`:

        s = r / log(l + 1) with `length_normalize`, l the response's tokens, else s = r
        m = s_c - s_r - margin
        (1 - e) softplus(-m) + e softplus(m) + z (s_c + s_r)^2

    averaged over pairs by their weights. The normalized rewards go into both terms (section 4.3, algorithm 1;
    the logarithm is taken as the natural one). The paper's best run uses none of the options.

    Args:
        margin: Whether a pair's rewards should differ by as much as its ratings, where these are known.
        label_smoothing: Probability that a label is the wrong way round, in [0, 0.5].
        zero_coefficient: Strength of the pull of a pair's rewards to zero sum; the paper tries 0.001 to 0.1.
        length_normalize: Whether rewards are divided by the log of their response's length.
        ties: "ignore" gives ties no weight; "half" takes either response as chosen with probability 1/2,
            margin 0.
    """

    def __init__(
        self,
        *,
        margin: bool = False,
        label_smoothing: float = 0.0,
        zero_coefficient: float = 0.0,
        length_normalize: bool = False,
        ties: Literal["ignore", "half"] = "ignore",
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 0.5:
            raise ValueError(f"label_smoothing is a probability from 0 to 0.5, not {label_smoothing}")
        if not 0 <= zero_coefficient < float("inf"):
            raise ValueError(f"zero_coefficient is a finite number >= 0, not {zero_coefficient}")
        self.margin = margin
        self.label_smoothing = label_smoothing
        self.zero_coefficient = zero_coefficient
        self.length_normalize = length_normalize
        self.ties = ties
        self.learns_from_ties = ties == "half"

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the weighted mean over pairs."""
        if self.length_normalize and targets.lengths is None:
            raise ValueError("length_normalize needs Targets with lengths, the tokens of each response")
        with torch.autocast(rewards.device.type, enabled=False):
            loss, sums = ops.batched_bt_loss(
                rewards,
                targets.pairs,
                tie=targets.tie,
                margin=targets.margin if self.margin else None,
                weight=targets.weight,
                lengths=targets.lengths if self.length_normalize else None,
                label_smoothing=self.label_smoothing,
                zero_coefficient=self.zero_coefficient,
                ties=self.ties,
            )
        return LossOutput(loss, sums[0].to(loss.dtype), sums)


class Hinge(Loss, nn.Module):
    """The hinge loss of a pair, max(0, margin - (r_c - r_r)).

    Args:
        margin: The difference from which on a pair costs nothing, >= 0.
        ties: "ignore" gives ties no weight; "half" takes either response as chosen with probability 1/2,
            margin 0, which is |r_c - r_r| / 2.
    """

    def __init__(self, *, margin: float = 1.0, ties: Literal["ignore", "half"] = "ignore") -> None:
        super().__init__()
        if not 0 <= margin < float("inf"):
            raise ValueError(f"margin is a finite number >= 0, not {margin}")
        self.margin = margin
        self.ties = ties
        self.learns_from_ties = ties == "half"

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the weighted mean over pairs."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = _upcast(rewards)
            chosen, rejected = targets.pairs.unbind(1)
            difference = rewards[chosen] - rewards[rejected]  # [P]
            cost = torch.where(targets.tie, difference.abs() / 2, functional.relu(self.margin - difference))
            weight = torch.ones_like(cost) if targets.weight is None else targets.weight.to(cost.dtype)
            if self.ties == "ignore":
                weight = weight * ~targets.tie
            return weighted_mean(cost, weight, rewards, targets)


class PlackettLuce(Loss, nn.Module):
    """The negative log-likelihood of a whole ranking of N responses (Plackett 1975, Luce 1959).

    The responses are taken as drawn one by one, best first, each in proportion to exp(reward) among those
    left. A comparison costs

        sum over i of [ log sum over j in R_i of exp(r_j)  -  r_i ],

    averaged over comparisons by their weights; R_i holds i and all responses ranked below it. For two
    responses that is `BradleyTerry`.

    Args:
        ties: "ignore": nothing is said about responses of equal rank, so R_i leaves them out, and a
            comparison of ties alone costs nothing. "breslow": R_i holds them too (Breslow's approximation for
            tied times of survival), which pulls their rewards together.
    """

    def __init__(self, *, ties: Literal["ignore", "breslow"] = "ignore") -> None:
        super().__init__()
        self.ties = ties
        self.learns_from_ties = ties == "breslow"

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the weighted mean over comparisons."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = _upcast(rewards)
            same = targets.group[:, None] == targets.group  # [N, N]
            below = targets.ranks > targets.ranks[:, None]  # [N, N]: j is ranked below i
            if self.ties == "breslow":
                below = below | (targets.ranks == targets.ranks[:, None])
            left = same & below | torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)
            cost = torch.where(left, rewards, -torch.inf).logsumexp(1) - rewards  # [N]
            cost = rewards.new_zeros(targets.num_comparisons).index_add(0, targets.group, cost)  # [C]
            weight = torch.ones_like(cost)
            if targets.comparison_weight is not None:
                weight = targets.comparison_weight.to(cost.dtype)
            return weighted_mean(cost, weight, rewards, targets)


class _OfRatings(Loss, nn.Module):
    """Base of losses of single responses with a rating."""

    def untrainable_reason(self, comparison: Comparison) -> DataError | None:
        """Return why a comparison never gives this loss a gradient; None if it has ratings."""
        if comparison.ratings is not None:
            return None
        unrated = DataError("has no ratings, and this loss learns from nothing else", field="ratings")
        return super().untrainable_reason(comparison) or unrated


class Regression(_OfRatings):
    """The squared distance of rewards from ratings, (r - (rating - mean) / std)^2; responses without rating
    are skipped. Ties are nothing special: their ratings are equal.

    Args:
        rating_mean: Subtracted from ratings.
        rating_std: What ratings are divided by then, > 0.
    """

    def __init__(self, *, rating_mean: float = 0.0, rating_std: float = 1.0) -> None:
        super().__init__()
        if not 0 < rating_std < float("inf"):
            raise ValueError(f"rating_std is a finite number > 0, not {rating_std}")
        self.rating_mean = rating_mean
        self.rating_std = rating_std

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the mean over responses with a rating, by the weights of their comparisons."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = _upcast(rewards)
            weight, ratings = _rated(rewards, targets)
            cost = (rewards - (ratings - self.rating_mean) / self.rating_std).square()  # [N]
            return weighted_mean(cost, weight, rewards, targets)


class BinaryCrossEntropy(_OfRatings):
    """The binary cross-entropy of rewards as log-odds of right: softplus(-r) of a right response, softplus(r)
    of a wrong one; responses without rating are skipped. Ties are nothing special: each has its own label.

    For the paradigm `steps`, whose responses are the steps of one solution.

    Args:
        right_from: The rating from which on a response is right.
    """

    def __init__(self, *, right_from: float = 0.5) -> None:
        super().__init__()
        self.right_from = right_from

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the mean over responses with a rating, by the weights of their comparisons."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = _upcast(rewards)
            weight, ratings = _rated(rewards, targets)
            cost = functional.softplus(torch.where(ratings >= self.right_from, -rewards, rewards))  # [N]
            return weighted_mean(cost, weight, rewards, targets)


def _rated(rewards: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Return the weight [N] of each response, 0 for one without rating, and the ratings [N], 0 there."""
    ratings = torch.full_like(rewards, torch.nan) if targets.ratings is None else targets.ratings
    is_rated = ~ratings.isnan()
    weight = is_rated.to(rewards.dtype)
    if targets.comparison_weight is not None:
        weight = weight * targets.comparison_weight[targets.group]
    return weight, torch.where(is_rated, ratings.to(rewards.dtype), 0.0)


def _upcast(rewards: Tensor) -> Tensor:
    return rewards if rewards.dtype == torch.float64 else rewards.float()


def weighted_mean(
    cost: Tensor,  # [K]
    weight: Tensor,  # [K]
    rewards: Tensor,  # [N]
    targets: Targets,
) -> LossOutput:
    """Return the weighted mean of costs as a loss, with the statistics of the rewards' pairs."""
    total = weight.sum()
    # All weights zero is a loss of zero, not 0 / 0.
    loss = (cost * weight).sum() / torch.where(total > 0, total, 1.0)
    return LossOutput(loss, total, ops.pair_statistics(rewards, targets.pairs, targets.tie, total))
