"""The head that calls the op."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from basereward.forest import Forest
from basereward.protocols import Head
from basereward_example_op.ops import gated_reward


class SwiGLU(Head, nn.Module):
    """A gated head: w . (silu(W_g x) * (W_u x)) + b at each response's last token (arXiv 2002.05202).

    Args:
        dim: Width D of the hidden states.
        width: Width H between the layers; None for D.
    """

    reads = "ends"

    def __init__(self, dim: int, *, width: int | None = None) -> None:
        super().__init__()
        width = dim if width is None else width
        self.gate = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(dim, width, bias=False)
        self.last = nn.Linear(width, 1)

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards in fp32, under autocast too."""
        with torch.autocast(hidden.device.type, enabled=False):
            ends = hidden.flatten(0, 1).index_select(0, forest.ends).to(self.gate.weight.dtype)  # [N, D]
            rewards = gated_reward(self.gate(ends), self.up(ends), self.last.weight[0])
            return rewards + self.last.bias.to(rewards.dtype)
