"""Attention that remembers: keys and values of a comparison's tokens, for responses that go on.

The prompt's are there once, whatever number of responses reads them, as in the forest itself.

Shapes: N responses, P tokens of the trunk, S of the longest branch, w width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from basereward.forest.attention import Layout

ROOM = 64
"""Tokens that branches can grow by before their place has to."""


@dataclass
class Layer:
    """What one attention layer remembers."""

    trunk: tuple[Tensor, Tensor]  # keys and values, each [key heads, P, w]
    own: tuple[Tensor, Tensor]  # keys and values, each [N, key heads, S or more, w]
    num_own: int  # S


class Memory:
    """The keys and values of one comparison in every layer.

    The first forward pass of a forest that has it fills it. In later passes each of the N responses has one
    new token, which sees the trunk, its own branch, and itself.
    """

    def __init__(self) -> None:
        self._layers: dict[int, Layer] = {}
        self._seen: Tensor | None = None  # [N, S] what of the branches after the first pass is no padding

    def holds(self, module: nn.Module) -> bool:
        """Tell whether an attention layer has been through its first pass."""
        return id(module) in self._layers

    def record(
        self,
        module: nn.Module,
        layout: Layout,
        key: Tensor,  # [B * L, key heads, w]
        value: Tensor,  # [B * L, key heads, w]
    ) -> None:
        """Keep the keys and values of a first pass over one tree."""
        [trunk], [branches] = layout.trunks, layout.branches
        longest = max(map(len, branches), default=0)
        num = max(len(branches), 1)  # a tree of one response is all trunk
        own = []
        for states in (key, value):
            place = states.new_zeros(num, states.shape[1], longest + ROOM, states.shape[2])
            for number, run in enumerate(branches):
                place[number, :, : len(run)] = states[run.start : run.stop].transpose(0, 1)
            own.append(place)
        whole = slice(trunk.start, trunk.stop)
        kept = (key[whole].transpose(0, 1).contiguous(), value[whole].transpose(0, 1).contiguous())
        self._layers[id(module)] = Layer(kept, (own[0], own[1]), longest)
        if self._seen is None:
            lengths = torch.tensor([len(run) for run in branches] or [0])
            self._seen = (torch.arange(longest) < lengths[:, None]).to(key.device)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,  # [N, heads, w]
        key: Tensor,  # [N, key heads, w]
        value: Tensor,  # [N, key heads, w]
        *,
        scale: float,
    ) -> Tensor:  # [N, heads, w]
        """Attend with each response's new token, and remember it."""
        layer = self._layers[id(module)]
        place = layer.num_own
        if place == layer.own[0].shape[2]:
            more = (0, 0, 0, place + ROOM)  # twice the place, so that growing costs little in all
            layer.own = (functional.pad(layer.own[0], more), functional.pad(layer.own[1], more))
        layer.own[0][:, :, place], layer.own[1][:, :, place] = key, value
        layer.num_own = place + 1
        keys, values = (states[:, :, : place + 1] for states in layer.own)

        num, num_heads, width = query.shape
        num_key_heads = key.shape[1]
        groups = num_heads // num_key_heads
        grouped = (query * scale).view(num, num_key_heads, groups, width)
        by_head = grouped.transpose(0, 1).flatten(1, 2)  # [key heads, N * groups, w]
        on_trunk = (
            (by_head @ layer.trunk[0].transpose(1, 2)).view(num_key_heads, num, groups, -1).transpose(0, 1)
        )
        on_own = grouped @ keys.transpose(2, 3)  # [N, key heads, groups, S + 1]
        assert self._seen is not None
        hidden = torch.zeros(num, place + 1, dtype=torch.bool, device=query.device)
        hidden[:, : self._seen.shape[1]] = ~self._seen
        on_own = on_own.masked_fill(hidden[:, None, None], float("-inf"))
        weights = torch.cat([on_trunk, on_own], dim=-1).float().softmax(-1).to(value.dtype)
        num_trunk = on_trunk.shape[-1]
        of_trunk, of_own = weights[..., :num_trunk], weights[..., num_trunk:]
        found = of_trunk.transpose(0, 1).flatten(1, 2) @ layer.trunk[1]  # [key heads, N * groups, w]
        joined = found.view(num_key_heads, num, groups, width).transpose(0, 1) + of_own @ values
        return joined.reshape(num, num_heads, width)

    def keep(self, rows: Tensor) -> None:
        """Forget all responses but these.

        Args:
            rows: Their numbers [n] among those that are remembered.
        """
        assert self._seen is not None
        self._seen = self._seen[rows]
        for layer in self._layers.values():
            layer.own = (layer.own[0][rows], layer.own[1][rows])
