"""Heads: hidden states in, one reward a response out.

Shapes: B rows, L tokens a row, T tokens of all responses, N responses, D width of the hidden states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from basereward.protocols import Head

if TYPE_CHECKING:
    from basereward.forest import Forest


class Attentive(Head, nn.Module):
    """A weighted mean of a response's tokens, then a linear layer; which tokens count is learned.

    Args:
        dim: Width D of the hidden states.
        temperature: What the tokens' scores are divided by; a small one looks at few tokens.
    """

    def __init__(self, dim: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is a number > 0, not {temperature}")
        self.temperature = temperature
        self.score = nn.Linear(dim, 1)
        self.reward = nn.Linear(dim, 1)

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards [N], in fp32 under autocast too."""
        with torch.autocast(hidden.device.type, enabled=False):
            # Only the responses' own tokens: neither prompts, which they share, nor padding.
            places = (forest.response >= 0).flatten().nonzero()[:, 0]  # [T]
            owner = forest.response.flatten()[places]  # [T]
            tokens = hidden.flatten(0, 1)[places].float()  # [T, D]
            scores = self.score(tokens)[:, 0] / self.temperature
            num = len(forest.ends)
            largest = scores.new_full((num,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
            weights = (scores - largest[owner]).exp()
            total = weights.new_zeros(num).index_add(0, owner, weights)
            pooled = tokens.new_zeros(num, tokens.shape[1]).index_add(0, owner, weights[:, None] * tokens)
            return self.reward(pooled / total[:, None])[:, 0]
