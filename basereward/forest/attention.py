"""Forest attention: prefix-sharing attention that skips the token pairs hidden by the forest's rule.

A dense mask over a row of one prompt and N responses of R tokens computes N * R more columns for each
response token than it may see. Here a prompt attends to itself, and its responses to it and to themselves, as
varlen attention: on a GPU in two calls of FlashAttention, elsewhere block by block. transformers calls it by
its registered name, through `AttentionInterface`.

Shapes: B rows, L tokens in a row.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from basereward.forest.block_kernels import block_kernel
from basereward.forest.flash_kernel import packed_kernel
from basereward.forest.layout import ForestLayout
from basereward.forest.varlen_attention import attend

NAME = "basereward_forest"


@cache
def register() -> str:
    """Register forest attention with transformers and return its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, forest_attention)
    # The layout holds the rule. Since no mask is registered for the name, transformers builds none, which for
    # long rows would be the largest tensor of all, nor does it read the positions, for which it would wait.
    return NAME


def forest_attention(
    module: nn.Module,
    query: Tensor,  # [B, heads, L, width of a head]
    key: Tensor,  # [B, key heads, L, width of a head]
    value: Tensor,  # [B, key heads, L, width of a head]
    attention_mask: Tensor | None = None,
    *,
    layout: ForestLayout,
    reads_ends: bool = False,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each tree; the result is [B, L, heads, width of a head], zero in padding.

    With `reads_ends`, only the results at `layout.ends` are right, and others may be zero.
    """
    shape = query.transpose(1, 2).shape
    scale = shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = token_states(query, key, value)
    if (kv_cache := layout.kv_cache) is not None:
        if kv_cache.is_prefilled(module):
            return kv_cache.decode(module, query, key, value, scale=scale).view(shape), None
        kv_cache.prefill(module, key, value, prefixes=layout.prefixes, branches=layout.branches)
    states = query.index_select(0, layout.ends) if reads_ends else query
    output: Tensor
    if (kernel := packed_kernel(query)) is not None:
        runs = layout.packed.of_ends if reads_ends else layout.packed.whole
        output = attend(states, key, value, runs, scale=scale, kernel=kernel)
    else:
        blocks = layout.blocks_of_ends if reads_ends else layout.blocks
        output = attend(states, key, value, blocks, scale=scale, kernel=block_kernel(query))
    if reads_ends:
        output = output.new_zeros(query.shape).index_copy(0, layout.ends, output)
    return output.view(shape), None


def token_states(
    query: Tensor,  # [B, heads, L, width of a head]
    key: Tensor,  # [B, key heads, L, width of a head]
    value: Tensor,  # [B, key heads, L, width of a head]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as [B * L, heads, width], in the type of an autocast around them."""
    states = tuple(state.transpose(1, 2).flatten(0, 1) for state in (query, key, value))
    device = query.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # Rotary positions leave queries and keys in fp32, and plain products would stay there.
        states = tuple(state.to(torch.get_autocast_dtype(device)) for state in states)
    query, key, value = states
    return query, key, value
