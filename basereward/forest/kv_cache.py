"""The KV cache of a tree: one copy of the prefix's keys and values, read by all responses in decoding.

Shapes: N responses, P tokens of the prefix, S of the longest branch, w width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

GROWTH = 64
"""Free places for new tokens of each branch after the prefill; once used up, the capacity doubles."""


@dataclass
class Layer:
    """The cached keys and values of one attention layer."""

    prefix: tuple[Tensor, Tensor]  # keys and values, each [key heads, P, w]
    branches: tuple[Tensor, Tensor]  # keys and values, each [N, key heads, S or more, w]
    num_branch_tokens: int  # S


class PrefixKVCache:
    """The keys and values of one tree in every layer.

    The first forward pass of a forest with this cache is the prefill. In each later pass, a decoding step,
    every one of the N responses has one new token, which sees the prefix, its own branch, and itself.
    """

    def __init__(self) -> None:
        self._layers: dict[int, Layer] = {}
        self._is_token: Tensor | None = None  # [N, S] False where prefilled branches are padding

    def is_prefilled(self, module: nn.Module) -> bool:
        """Tell whether an attention layer has been through the prefill."""
        return id(module) in self._layers

    def prefill(
        self,
        module: nn.Module,
        key: Tensor,  # [B * L, key heads, w]
        value: Tensor,  # [B * L, key heads, w]
        *,
        prefix: range,
        branches: Sequence[range],
    ) -> None:
        """Store the keys and values of one tree.

        Args:
            module: The attention layer.
            key: Keys of all tokens of the forest.
            value: Values, likewise.
            prefix: Flat positions in B * L of the prefix.
            branches: Flat positions of each branch; empty for a tree of one response, which is prefix alone.
        """
        longest = max(map(len, branches), default=0)
        num_responses = max(len(branches), 1)
        padded = []
        for states in (key, value):
            rows = states.new_zeros(num_responses, states.shape[1], longest + GROWTH, states.shape[2])
            for number, run in enumerate(branches):
                rows[number, :, : len(run)] = states[run.start : run.stop].transpose(0, 1)
            padded.append(rows)
        whole = slice(prefix.start, prefix.stop)
        prefix_states = (key[whole].transpose(0, 1).contiguous(), value[whole].transpose(0, 1).contiguous())
        self._layers[id(module)] = Layer(prefix_states, (padded[0], padded[1]), longest)
        if self._is_token is None:
            lengths = torch.tensor([len(run) for run in branches] or [0])
            self._is_token = (torch.arange(longest) < lengths[:, None]).to(key.device)

    def decode(
        self,
        module: nn.Module,
        query: Tensor,  # [N, heads, w]
        key: Tensor,  # [N, key heads, w]
        value: Tensor,  # [N, key heads, w]
        *,
        scale: float,
    ) -> Tensor:  # [N, heads, w]
        """Append each response's new token to the cache, and attend with it."""
        layer = self._layers[id(module)]
        place = layer.num_branch_tokens
        if place == layer.branches[0].shape[2]:
            padding = (0, 0, 0, place + GROWTH)  # doubled, so that copying takes constant time a token
            keys, values = layer.branches
            layer.branches = (functional.pad(keys, padding), functional.pad(values, padding))
        layer.branches[0][:, :, place], layer.branches[1][:, :, place] = key, value
        layer.num_branch_tokens = place + 1
        keys, values = (states[:, :, : place + 1] for states in layer.branches)

        num_responses, num_heads, width = query.shape
        num_key_heads = key.shape[1]
        groups = num_heads // num_key_heads
        grouped = (query * scale).view(num_responses, num_key_heads, groups, width)
        by_head = grouped.transpose(0, 1).flatten(1, 2)  # [key heads, N * groups, w]
        prefix_scores = (
            (by_head @ layer.prefix[0].transpose(1, 2))
            .view(num_key_heads, num_responses, groups, -1)
            .transpose(0, 1)
        )  # [N, key heads, groups, P]
        branch_scores = grouped @ keys.transpose(2, 3)  # [N, key heads, groups, S + 1]
        assert self._is_token is not None
        hidden = torch.zeros(num_responses, place + 1, dtype=torch.bool, device=query.device)
        hidden[:, : self._is_token.shape[1]] = ~self._is_token
        branch_scores = branch_scores.masked_fill(hidden[:, None, None], float("-inf"))
        weights = torch.cat([prefix_scores, branch_scores], dim=-1).float().softmax(-1).to(value.dtype)
        num_prefix_tokens = prefix_scores.shape[-1]
        prefix_weights, branch_weights = weights[..., :num_prefix_tokens], weights[..., num_prefix_tokens:]
        prefix_output = prefix_weights.transpose(0, 1).flatten(1, 2) @ layer.prefix[1]
        output = (
            prefix_output.view(num_key_heads, num_responses, groups, width).transpose(0, 1)
            + branch_weights @ values
        )
        return output.reshape(num_responses, num_heads, width)

    def select(self, rows: Tensor) -> None:
        """Keep only some of the responses.

        Args:
            rows: [n] their numbers among the cached ones.
        """
        assert self._is_token is not None
        self._is_token = self._is_token[rows]
        for layer in self._layers.values():
            layer.branches = (layer.branches[0][rows], layer.branches[1][rows])
