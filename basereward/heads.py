"""Reward heads: hidden states at the responses' ends to one scalar each, in fp32."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basereward import ops
from basereward.errors import ConfigError
from basereward.forest.forest import Forest
from basereward.protocols import Head

ACTIVATIONS = {"none": nn.Identity, "tanh": nn.Tanh, "silu": nn.SiLU, "relu": nn.ReLU}

Pooling = Literal["last", "mean"]


def gather(hidden: Tensor, forest: Forest, pooling: Pooling) -> Tensor:  # [B, L, D] -> [N, D] fp32
    """Return what a head reads of each response: its last token, or the mean over its tokens.

    Picking rows before the head, not after it, is what keeps a head's cost at N rows instead of B * L.
    """
    tokens = hidden.flatten(0, 1)  # [B * L, D]
    if pooling == "last":
        return tokens.index_select(0, forest.ends).float()
    # Prompts and padding go to a row of their own: only the device could tell how many tokens are left
    # without them.
    num_responses = len(forest.ends)
    owner = forest.response.flatten()
    owner = torch.where(owner < 0, num_responses, owner)
    sums = tokens.new_zeros(num_responses + 1, hidden.shape[-1], dtype=torch.float32)
    sums = sums.index_add(0, owner, tokens.float())[:num_responses]
    return sums / forest.lengths[:, None]


class MLP(Head, nn.Module):
    """A perceptron on each response's hidden state; arXiv 2509.16127, 4.2, found 2 layers and SiLU best.

    Args:
        dim: Width D of the hidden states.
        num_layers: Linear layers, 1 to 5; with 1 the head is linear.
        activation: What stands between the layers.
        width: Width of the layers in between; None for D.
        dropout: Share of inputs dropped before each layer in training.
        pooling: `last` reads a response's last token, `mean` averages over its tokens.
        layer: Decoder layer to read, counted from 1, before the final norm; None for what leaves the
            decoder. Later layers are dropped.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int = 2,
        activation: ops.Activation = "silu",
        width: int | None = None,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        layer: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= num_layers <= 5:
            raise ConfigError(f"head option num_layers is {num_layers}; allowed: 1 to 5")
        if not 0 <= dropout < 1:
            raise ConfigError(f"head option dropout is {dropout}; allowed: 0 up to, not including, 1")
        widths = [dim] + [width or dim] * (num_layers - 1) + [1]
        self.layers = nn.ModuleList(nn.Linear(here, there) for here, there in pairwise(widths))
        self.activation_name: ops.Activation = activation
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.pooling: Pooling = pooling
        self.reads = "ends" if pooling == "last" else "all"
        self.reads_layer = layer
        self.uses_all_weights = True

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards [N] in fp32, whatever the backbone's type or the autocast around it.

        A bf16 head gives equal scores to candidates that are not equal, and a group of ties teaches nothing.
        """
        layers: list[Any] = list(self.layers)
        is_dropping = self.training and self.dropout.p > 0
        # The op takes the last two layers at once, and picks the rows they read; dropout stands between them.
        num_before = len(layers) - min(len(layers), 1 if is_dropping else 2)
        states: Tensor = hidden
        ends: Tensor | None = forest.ends
        if num_before or is_dropping or self.pooling != "last":
            with torch.autocast(hidden.device.type, enabled=False):
                states, ends = self.dropout(gather(hidden, forest, self.pooling)), None
                for layer in layers[:num_before]:
                    states = self.dropout(self.activation(layer(states)))
        first, last = layers[num_before:] if len(layers) - num_before == 2 else (None, layers[-1])
        return ops.pairwise_reward_head(
            states,
            ends,
            None if first is None else first.weight,
            None if first is None else first.bias,
            last.weight,
            last.bias,
            activation="none" if first is None else self.activation_name,
        )


class Linear(MLP):
    """One linear layer, as in most published reward models.

    Args:
        dim: Width D of the hidden states.
        bias: Whether a constant is added to rewards. Pairwise losses cannot learn it (it cancels), and
            other formats have no bias.
        dropout: Share of inputs dropped in training.
        pooling: `last` reads a response's last token, `mean` averages over its tokens.
        layer: Decoder layer to read, counted from 1, before the final norm; None for what leaves the
            decoder. Later layers are dropped.
    """

    def __init__(
        self,
        dim: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        layer: int | None = None,
    ) -> None:
        super().__init__(dim, num_layers=1, activation="none", dropout=dropout, pooling=pooling, layer=layer)
        if not bias:
            constant: Any = self.layers[0].bias
            nn.init.zeros_(constant).requires_grad_(False)
