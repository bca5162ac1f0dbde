"""Heads that know more of a response than one number.

Shapes: B rows, L tokens a row, D width, N responses, A attributes, T trees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.protocols import Head

if TYPE_CHECKING:
    from basereward.forest import Forest

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The attributes that HelpSteer rates (arXiv 2311.09528)."""


class Gated(Head, nn.Module):
    """A reward for each attribute, and a gate that weighs them by what is asked (ArmoRM, arXiv 2406.12845).

    The attributes' ratings are linear in the state at a response's end. The gate reads the state at the end
    of the prompt, before any response, and gives weights that are not negative and add up to 1. The reward is
    the weighted sum of ratings, once `decorrelate` has been called of r_i - c_i r_v instead of r_i, where v
    is the attribute that is not to count twice.

    Args:
        dim: Width D of the hidden states.
        attributes: Their names, as the ratings of the training data have them.
        gate_width: Width of the gate's hidden layer.
        temperature: What the gate's logits are divided by, > 0; smaller ones choose more sharply.
    """

    mixture: Tensor  # [A, A], 1 on the diagonal; -c in the row of v

    def __init__(
        self,
        dim: int,
        *,
        attributes: tuple[str, ...] = HELPSTEER,
        gate_width: int = 256,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not attributes or len(set(attributes)) < len(attributes):
            raise ValueError(f"attributes are different names, one or more; not {list(attributes)}")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is a finite number > 0, not {temperature}")
        self.attributes = attributes
        self.temperature = temperature
        self.ratings_of = nn.Linear(dim, len(attributes))
        self.gate = nn.Sequential(
            nn.Linear(dim, gate_width), nn.SiLU(), nn.Linear(gate_width, len(attributes))
        )
        self.register_buffer("mixture", torch.eye(len(attributes)))

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards [N], fp32."""
        return self.reward(self.ratings(hidden, forest), self.weights(hidden, forest))

    def ratings(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N, A]
        """Return what each response's attributes would be rated, fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            ratings: Tensor = self.ratings_of(_at(hidden, forest.ends))
            return ratings

    def weights(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N, A]
        """Return how much each attribute counts for each response, the same for all of a prompt, fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = self.gate(_at(hidden, _prompt_ends(forest)))
            return (logits / self.temperature).softmax(-1)

    def reward(self, ratings: Tensor, weights: Tensor) -> Tensor:  # [N, A], [N, A] -> [N]
        """Return the rewards that ratings and weights make, fp32."""
        # No product of matrices, which autocast would compute in bf16 and a GPU perhaps in tf32.
        mixed = (ratings[:, :, None] * self.mixture).sum(1)  # [N, A]
        return (mixed * weights).sum(1)

    @torch.no_grad()
    def decorrelate(self, ratings: Tensor, attribute: str) -> None:  # [N, A]
        """Take out of all other attributes' part in the reward what goes with one of them.

        c_i = cov(r_i, r_v) / var(r_v), so that over these ratings r_i - c_i r_v and r_v have no correlation
        (Pearson's; ArmoRM, arXiv 2406.12845, makes Spearman's zero).

        Raises:
            ValueError: When there is no such attribute, or it is the same for all responses.
        """
        if attribute not in self.attributes:
            raise ValueError(f"there is no attribute {attribute!r}; attributes: {', '.join(self.attributes)}")
        place = self.attributes.index(attribute)
        centred = ratings.double() - ratings.double().mean(0)
        common = centred[:, place] @ centred  # [A]
        if not common[place] > 0:
            raise ValueError(f"{attribute} is the same for all of {len(ratings)} responses; more are needed")
        mixture = torch.eye(len(self.attributes), dtype=torch.float64, device=ratings.device)
        mixture[place] -= common / common[place]
        mixture[place, place] = 1.0
        self.mixture.copy_(mixture)


class MeanAndVariance(NamedTuple):
    """The mean and the variance of each response's reward."""

    mean: Tensor  # [N]
    variance: Tensor  # [N]


class Uncertain(Head, nn.Module):
    """A normal distribution instead of a number: its mean, and a variance (arXiv 2410.00847, 2503.22480).

    The reward that comes out is mean - aversion * standard deviation: what is left if the model is as wrong
    as it expects to be.

    Args:
        dim: Width D of the hidden states.
        aversion: How many standard deviations are taken off, >= 0.
        min_variance: The least variance, > 0.
    """

    reads = "ends"

    def __init__(self, dim: int, *, aversion: float = 0.0, min_variance: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= aversion < float("inf"):
            raise ValueError(f"aversion is a finite number >= 0, not {aversion}")
        if not 0 < min_variance < float("inf"):
            raise ValueError(f"min_variance is a finite number > 0, not {min_variance}")
        self.aversion = aversion
        self.min_variance = min_variance
        self.mean = nn.Linear(dim, 1)
        self.spread = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1))

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards [N], fp32."""
        return self.reward(*self.distribution(hidden, forest))

    def reward(self, mean: Tensor, variance: Tensor) -> Tensor:  # [N], [N] -> [N]
        """Return what is left of the means when the doubt is taken off."""
        return mean - self.aversion * variance.sqrt()

    def distribution(self, hidden: Tensor, forest: Forest) -> MeanAndVariance:
        """Return the distribution of each response's reward, fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            states = _at(hidden, forest.ends)
            variance = functional.softplus(self.spread(states)) + self.min_variance
            return MeanAndVariance(self.mean(states)[:, 0], variance[:, 0])


def _at(hidden: Tensor, places: Tensor) -> Tensor:  # [B, L, D], [n] -> [n, D] fp32
    return hidden.flatten(0, 1).index_select(0, places).float()


def _prompt_ends(forest: Forest) -> Tensor:  # [N]
    """Return the place in B * L of the last token of each response's prompt."""
    tree = forest.tree.flatten()
    places = (forest.branch.flatten() == 0).nonzero()[:, 0]
    last = places.new_zeros(len(forest.spans)).scatter_reduce(0, tree[places], places, "amax")  # [T]
    return last[tree[forest.ends]]
