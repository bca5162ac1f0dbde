"""Bradley-Terry with ties, in two models of how a tie comes about.

Shapes: N responses, P pairs; m is a pair's margin, the difference of its rewards.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.losses import LossOutput
from basereward.ops import pair_statistics
from basereward.protocols import Loss

if TYPE_CHECKING:
    from basereward.losses import Targets


class Outcomes(NamedTuple):
    """Probabilities of what a comparison of two responses comes to."""

    win: Tensor
    tie: Tensor
    loss: Tensor


class TieLoss(Loss, nn.Module, abc.ABC):
    """Base of losses in which a tie is an outcome like any other, with a probability of its own."""

    learns_from_ties = True

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:  # rewards [N]
        """Return the weighted mean over pairs, ties among them."""
        with torch.autocast(rewards.device.type, enabled=False):
            rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
            chosen, rejected = rewards[targets.pairs].unbind(1)  # [P], [P]
            margin = chosen - rejected
            cost = torch.where(targets.tie, self.tie_cost(margin), self.win_cost(margin))
            weight = torch.ones_like(cost) if targets.weight is None else targets.weight.to(cost.dtype)
            total = weight.sum()
            # Where all weights are zero the loss is zero, not 0 / 0.
            loss = (cost * weight).sum() / torch.where(total > 0, total, 1.0)
            return LossOutput(loss, total, pair_statistics(rewards, targets.pairs, targets.tie, total))

    @torch.enable_grad()
    def fit(self, rewards: Tensor, targets: Targets) -> None:  # rewards [N]
        """Make the parameter the likeliest for these outcomes, with the rewards as they are; `learn` or not.

        Raises:
            ValueError: When all pairs that count are ties, or none is: no number is the likeliest then.
        """
        ties = targets.tie if targets.weight is None else targets.tie[targets.weight > 0]
        if not 0 < int(ties.sum()) < len(ties):
            raise ValueError(
                f"fit needs ties and pairs that are none; of {len(ties)} pairs {int(ties.sum())} are ties"
            )
        (parameter,) = self.parameters()
        was_learnt, rewards = parameter.requires_grad, rewards.detach()
        optimizer = torch.optim.LBFGS(
            [parameter.requires_grad_()], max_iter=100, line_search_fn="strong_wolfe"
        )

        def cost() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = self(rewards, targets).loss
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(cost)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        parameter.requires_grad_(was_learnt)

    @torch.no_grad()
    def outcomes(self, margin: Tensor) -> Outcomes:
        """Return how likely the first of two responses is to win, tie and lose, for margins of any shape."""
        costs = (self.win_cost(margin), self.tie_cost(margin), self.win_cost(-margin))
        return Outcomes(*(cost.neg().exp() for cost in costs))

    @abc.abstractmethod
    def win_cost(self, margin: Tensor) -> Tensor:
        """Return the negative log-likelihood that the first response wins."""

    @abc.abstractmethod
    def tie_cost(self, margin: Tensor) -> Tensor:
        """Return the negative log-likelihood of a tie."""


class Davidson(TieLoss):
    """Ties in proportion to the geometric mean of both strengths (Davidson 1970, JASA 65).

    With strengths exp(r) and nu > 0, of two responses with the margin m

        P(win) = e^(m/2) / Z,   P(tie) = nu / Z,   Z = e^(m/2) + e^(-m/2) + nu,

    so that two equal responses tie with the probability nu / (2 + nu), and nu near 0 is Bradley-Terry. Ties
    count as pairs do; they pull the two rewards together.

    Args:
        nu: How readily there are ties, > 0; where it starts, if it is learnt.
        learn: Whether nu is learnt with the head, at the head's rate. It is saved either way.
    """

    def __init__(self, *, nu: float = 1.0, learn: bool = True) -> None:
        super().__init__()
        if not 0 < nu < float("inf"):
            raise ValueError(f"nu is a finite number > 0, not {nu}")
        self.log_nu = nn.Parameter(torch.tensor(math.log(nu)), requires_grad=learn)

    def win_cost(self, margin: Tensor) -> Tensor:
        """Return log Z - m / 2."""
        return self._log_normaliser(margin) - margin / 2

    def tie_cost(self, margin: Tensor) -> Tensor:
        """Return log Z - log nu."""
        return self._log_normaliser(margin) - self.log_nu.to(margin.dtype)

    def _log_normaliser(self, margin: Tensor) -> Tensor:
        log_nu = self.log_nu.to(margin.dtype).expand_as(margin)
        return torch.stack([margin / 2, -margin / 2, log_nu]).logsumexp(0)


class RaoKupper(TieLoss):
    """Ties where neither strength is enough ahead of the other (Rao and Kupper 1967, JASA 62).

    With a threshold d > 0, of two responses with the margin m

        P(win) = s(m - d),   P(tie) = (e^(2d) - 1) s(m - d) s(-m - d),   s(x) = 1 / (1 + e^-x),

    so that two equal responses tie with the probability tanh(d / 2), and d near 0 is Bradley-Terry. Ties
    count as pairs do; they pull the two rewards together.

    Args:
        threshold: d, the margin at which winning is an even chance, > 0; where it starts, if it is learnt.
        learn: Whether it is learnt with the head, at the head's rate. It is saved either way.
    """

    def __init__(self, *, threshold: float = 0.5, learn: bool = True) -> None:
        super().__init__()
        if not 0 < threshold < float("inf"):
            raise ValueError(f"threshold is a finite number > 0, not {threshold}")
        self.log_threshold = nn.Parameter(torch.tensor(math.log(threshold)), requires_grad=learn)

    def win_cost(self, margin: Tensor) -> Tensor:
        """Return -log s(m - d)."""
        return functional.softplus(self._threshold(margin) - margin)

    def tie_cost(self, margin: Tensor) -> Tensor:
        """Return -log P(tie)."""
        threshold = self._threshold(margin)
        readiness = 2 * threshold + torch.log(-torch.expm1(-2 * threshold))  # log(e^(2d) - 1)
        return functional.softplus(threshold - margin) + functional.softplus(threshold + margin) - readiness

    def _threshold(self, margin: Tensor) -> Tensor:
        return self.log_threshold.to(margin.dtype).exp()
