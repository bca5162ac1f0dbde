"""Forest attention: the forest's rule of visibility, computed without the pairs of tokens that it hides.

A dense mask over a row of one prompt and N responses computes N * R more columns for each response token than
it may see. Here the prompt attends to itself in one causal call, and the responses are a batch of rows whose
keys are the prompt and their own tokens. transformers reaches it by its name, through `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest import Forest, Span

NAME = "basereward_forest"


@dataclass(frozen=True)
class Block:
    """One tree as attention sees it."""

    span: Span
    places: Tensor  # [N, R] columns of each response's tokens; shorter ones repeat their last column
    mask: Tensor  # [1, 1, R, P + R] what each response token may see
    kept: Tensor | None  # [sum of lengths] which of the N * R places hold a token; None where all do


def blocks(forest: Forest) -> list[Block]:
    """Work out once a batch what every layer's attention needs."""
    return [_block(span, forest.input_ids.device) for span in forest.spans]


@cache
def register() -> str:
    """Make forest attention known to transformers and return the name it is known by."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, forest_attention)
    # The rule is in the blocks: no mask is built, which for long rows would be the largest tensor of all.
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    return NAME


def forest_attention(
    module: nn.Module,
    query: Tensor,  # [B, heads, L, width of a head]
    key: Tensor,  # [B, key heads, L, width of a head]
    value: Tensor,  # [B, key heads, L, width of a head]
    attention_mask: Tensor | None = None,
    *,
    blocks: list[Block],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each tree; the result is [B, L, heads, width of a head], zero in padding."""
    grouped = key.shape[1] != query.shape[1]
    if grouped and query.device.type != "cpu":
        # Off the CPU no fused kernel takes grouped heads together with a mask.
        repeat = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeat, dim=1), value.repeat_interleave(repeat, dim=1)
        grouped = False
    options = {"scale": scaling, "dropout_p": dropout, "enable_gqa": grouped}
    num_rows, _, length, _ = query.shape
    rows: list[list[Tensor]] = [[] for _ in range(num_rows)]
    filled = [0] * num_rows
    for block in blocks:
        row = block.span.row
        rows[row] += _attend(query[row], key[row], value[row], block, options)
        filled[row] = block.span.stop
    for row, width in zip(rows, filled, strict=True):
        if width < length:
            row.append(query.new_zeros(length - width, query.shape[1], query.shape[3]))
    return torch.stack([torch.cat(row) for row in rows]), None


def _attend(
    query: Tensor,  # [heads, L, width]
    key: Tensor,  # [key heads, L, width]
    value: Tensor,  # [key heads, L, width]
    block: Block,
    options: dict[str, Any],
) -> list[Tensor]:  # [tokens, heads, width] each
    span = block.span
    attend = functional.scaled_dot_product_attention
    if len(span.responses) == 1:
        whole = slice(span.start, span.stop)
        out = attend(
            query[None, :, whole], key[None, :, whole], value[None, :, whole], is_causal=True, **options
        )
        return [out[0].transpose(0, 1)]
    prompt = slice(span.start, span.start + span.prompt)
    trunk = attend(
        query[None, :, prompt], key[None, :, prompt], value[None, :, prompt], is_causal=True, **options
    )
    num_responses = len(span.responses)

    def with_prompt(states: Tensor) -> Tensor:  # [key heads, L, width] -> [N, key heads, P + R, width]
        shared = states[None, :, prompt].expand(num_responses, -1, -1, -1)
        return torch.cat([shared, states[:, block.places].transpose(0, 1)], dim=2)

    branches = attend(
        query[:, block.places].transpose(0, 1),
        with_prompt(key),
        with_prompt(value),
        attn_mask=block.mask,
        **options,
    )  # [N, heads, R, width]
    tokens = branches.transpose(1, 2).flatten(0, 1)  # [N * R, heads, width]
    return [trunk[0].transpose(0, 1), tokens if block.kept is None else tokens[block.kept]]


def _block(span: Span, device: torch.device) -> Block:
    lengths = torch.tensor(span.responses)
    longest = int(lengths.max())
    steps = torch.arange(longest)
    first = span.start + span.prompt + lengths.cumsum(0) - lengths
    places = first[:, None] + torch.minimum(steps[None], lengths[:, None] - 1)
    # A response's padding repeats its last token and is dropped later, so one causal mask serves them all.
    mask = torch.ones(longest, span.prompt + longest, dtype=torch.bool).tril(span.prompt)
    kept = (steps[None] < lengths[:, None]).flatten()
    return Block(
        span,
        places.to(device),
        mask[None, None].to(device),
        None if bool(kept.all()) else kept.nonzero()[:, 0].to(device),
    )
