"""Forest attention: prefix-sharing attention that skips the token pairs hidden by the forest's rule.

A dense mask over a row of one prompt and N responses computes N * R more columns for each response token than
it may see. Here a prompt attends to itself, and its responses to it and to themselves: on a CPU as varlen
attention (`varlen_attention`), elsewhere all prompts of a batch in one causal call, and all responses as the
rows of a second one, whose keys are their prompt's and their own. transformers calls it by its registered
name, through `AttentionInterface`.

Shapes: B rows, L tokens in a row, T trees, P tokens of the longest prefix, M branches, R of the longest.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest.layout import ForestLayout, PaddedBatches
from basereward.forest.varlen_attention import attend

NAME = "basereward_forest"


@cache
def register() -> str:
    """Register forest attention with transformers and return its name there."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, forest_attention)
    # The layout holds the rule: no mask is built, which for long rows would be the largest tensor of all.
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
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
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each tree; the result is [B, L, heads, width of a head], zero in padding.

    With `reads_ends`, only the results at `layout.ends` are right, and others may be zero.
    """
    if torch.is_autocast_enabled(query.device.type):
        # Rotary positions leave queries and keys in fp32, and plain products would stay there.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    shape = query.transpose(1, 2).shape
    scale = shape[-1] ** -0.5 if scaling is None else scaling
    # [B * L, heads, width]
    query, key, value = (state.transpose(1, 2).flatten(0, 1) for state in (query, key, value))
    if (kv_cache := layout.kv_cache) is not None:
        if kv_cache.is_prefilled(module):
            return kv_cache.decode(module, query, key, value, scale=scale).view(shape), None
        kv_cache.prefill(module, key, value, prefixes=layout.prefixes, branches=layout.branches)
    if query.device.type != "cpu" or dropout:
        return _in_batches(query, key, value, layout.padded, scale=scale, dropout=dropout).view(shape), None
    if not reads_ends:
        return attend(query, key, value, layout.blocks, scale=scale).view(shape), None
    at_ends = attend(query.index_select(0, layout.ends), key, value, layout.blocks_of_ends, scale=scale)
    return query.new_zeros(query.shape).index_copy(0, layout.ends, at_ends).view(shape), None


def _in_batches(
    query: Tensor,  # [B * L, heads, width]
    key: Tensor,  # [B * L, key heads, width]
    value: Tensor,  # [B * L, key heads, width]
    index: PaddedBatches,
    *,
    scale: float,
    dropout: float,
) -> Tensor:  # [B * L, heads, width]
    states = (query, key, value)
    prefixes = [_gather(state, index.prefixes) for state in states]  # [T, heads, P, width]
    results = [_attend(*prefixes, mask=None, scale=scale, dropout=dropout).transpose(1, 2).flatten(0, 1)]
    if len(index.tree):
        branches = [_gather(state, index.branches) for state in states]  # [M, heads, R, width]
        keys_and_values = [
            torch.cat([prefix.index_select(0, index.tree), branch], dim=2)
            for prefix, branch in zip(prefixes[1:], branches[1:], strict=True)
        ]  # [M, heads, P + R, width]
        results.append(
            _attend(branches[0], *keys_and_values, mask=index.mask, scale=scale, dropout=dropout)
            .transpose(1, 2)
            .flatten(0, 1)
        )
    results.append(results[0].new_zeros(1, *query.shape[1:]))
    return torch.cat(results).index_select(0, index.scatter_index)


def _attend(
    query: Tensor,  # [rows, heads, R, width]
    key: Tensor,  # [rows, key heads, S, width]
    value: Tensor,  # [rows, key heads, S, width]
    *,
    mask: Tensor | None,  # [rows or 1, 1, R, S] True where seen; None for causal
    scale: float,
    dropout: float,
) -> Tensor:  # [rows, heads, R, width]
    """Attend by torch's fastest kernel; each key head serves an equal group of query heads."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.device.type != "cpu":
        # Off the CPU no fused kernel takes grouped heads together with a mask.
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        dropout_p=dropout,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _gather(
    states: Tensor,  # [B * L, heads, width]
    index: Tensor,  # [rows, columns]
) -> Tensor:  # [rows, heads, columns, width]
    return torch.unflatten(states.index_select(0, index.flatten()), 0, index.shape).transpose(1, 2)
