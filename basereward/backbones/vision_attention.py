"""Attention of vision towers that mark where each image or window begins: all of them in one call.

transformers hands `cu_seqlens` to attention functions alone whose name contains "flash"; for others it splits
the states at each of these places, for which it reads them back from the device in every layer, and calls the
function once for each image and window, 64 of them for 1024 x 1024 pixels in Qwen2.5-VL.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from basereward.forest.attention import token_states
from basereward.forest.flash_kernel import packed_kernel
from basereward.forest.varlen_attention import AttentionBlocks, PackedBlock, attend

NAME = "basereward_flash_vision"


@cache
def register() -> str:
    """Register this attention with transformers and return its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, vision_attention)
    return NAME


def vision_attention(
    module: nn.Module,
    query: Tensor,  # [1, heads, patches, width of a head]
    key: Tensor,  # [1, heads, patches, width of a head]
    value: Tensor,  # [1, heads, patches, width of a head]
    attention_mask: Tensor | None = None,
    *,
    cu_seq_lens_q: Tensor,  # [windows + 1] int32
    max_length_q: int,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each image or window; the result is [1, patches, heads, width of a head]."""
    states = token_states(query, key, value)
    if (kernel := packed_kernel(states[0])) is not None:
        windows = PackedBlock(None, None, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        output = attend(*states, AttentionBlocks([windows], []), scale=scaling, kernel=kernel)
    else:
        output = _by_length(*states, cu_seq_lens_q.diff().tolist(), scale=scaling)
    return output[None], None


def _by_length(
    query: Tensor,  # [patches, heads, width]
    key: Tensor,
    value: Tensor,
    lengths: list[int],
    *,
    scale: float,
) -> Tensor:  # [patches, heads, width]
    """Attend within windows, as many in one call as stand next to each other and are of one length."""
    outputs = []
    start = 0
    for length, run in groupby(lengths):
        stop = start + length * len(list(run))
        queries, keys, values = (
            torch.unflatten(states[start:stop], 0, (-1, length)).transpose(1, 2)
            for states in (query, key, value)
        )  # [windows, heads, length, width]
        output = scaled_dot_product_attention(queries, keys, values, scale=scale)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(outputs)
