"""Forest attention: the forest's rule of visibility, computed without the pairs of tokens that it hides.

A dense mask over a row of one prompt and N responses computes N * R more columns for each response token than
it may see. Here all prompts of a batch attend to themselves in one causal call, and all responses are the
rows of a second one, whose keys are their prompt and their own tokens. transformers reaches it by its name,
through `AttentionInterface`.

Letters: B rows, L tokens in a row, T trees, P tokens of the longest trunk, M branches, R of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest import Forest, Span

NAME = "basereward_forest"


@dataclass(frozen=True)
class Layout:
    """Where attention finds a forest's tokens, worked out once a batch for all layers.

    A tree of one response is all trunk: nothing branches off it.
    """

    trunks: Tensor  # [T, P] place of each trunk token in B * L; the shorter ones repeat their last
    branches: Tensor  # [M, R] place of each branch token, likewise
    tree: Tensor  # [M] tree of each branch
    mask: Tensor  # [M or 1, 1, R, P + R] what each branch token may see of its trunk and branch
    back: (
        Tensor  # [B * L] where each token's result lies among T * P + M * R results; the last is for padding
    )


def layout(forest: Forest) -> Layout:
    """Work out a forest's layout."""
    width = forest.input_ids.shape[1]
    device = forest.input_ids.device
    trunks = [range(_first(span, width), _first(span, width) + _trunk(span)) for span in forest.spans]
    branches: list[range] = []
    tree: list[int] = []
    for number, span in enumerate(forest.spans):
        if len(span.responses) > 1:
            ends = list(accumulate(span.responses, initial=trunks[number].stop))
            branches += [range(start, stop) for start, stop in pairwise(ends)]
            tree += [number] * len(span.responses)
    trunk_places, branch_places = _padded(trunks), _padded(branches)
    longest, longest_branch = trunk_places.shape[1], branch_places.shape[1]

    back = torch.full((forest.input_ids.numel(),), trunk_places.numel() + branch_places.numel())
    for places, offset in ((trunks, 0), (branches, trunk_places.numel())):
        row_width = longest if offset == 0 else longest_branch
        for row, place in enumerate(places):
            first = offset + row * row_width
            back[place.start : place.stop] = torch.arange(first, first + len(place))

    lengths = torch.tensor([len(trunks[number]) for number in tree], dtype=torch.long)
    if len(lengths) and bool((lengths == longest).all()):
        lengths = lengths[:1]
    on_trunk = torch.arange(longest) < lengths[:, None, None, None]  # [M or 1, 1, 1, P]
    own = torch.ones(longest_branch, longest_branch, dtype=torch.bool).tril()  # [R, R]
    mask = torch.cat(
        [
            on_trunk.expand(-1, -1, longest_branch, -1),
            own.expand(len(lengths), 1, -1, -1),
        ],
        dim=-1,
    )
    tensors = (trunk_places, branch_places, torch.tensor(tree, dtype=torch.long), mask, back)
    return Layout(*(tensor.to(device) for tensor in tensors))


@cache
def register() -> str:
    """Make forest attention known to transformers and return the name it is known by."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, forest_attention)
    # The rule is in the layout: no mask is built, which for long rows would be the largest tensor of all.
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    return NAME


def forest_attention(
    module: nn.Module,
    query: Tensor,  # [B, heads, L, width of a head]
    key: Tensor,  # [B, key heads, L, width of a head]
    value: Tensor,  # [B, key heads, L, width of a head]
    attention_mask: Tensor | None = None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each tree; the result is [B, L, heads, width of a head], zero in padding."""
    if torch.is_autocast_enabled(query.device.type):
        # Rotary positions leave queries and keys in fp32, and plain products would stay there.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    shape = query.transpose(1, 2).shape
    scale = shape[-1] ** -0.5 if scaling is None else scaling
    states = [state.transpose(1, 2).flatten(0, 1) for state in (query, key, value)]  # [B * L, heads, width]

    trunks = [_rows(state, layout.trunks) for state in states]  # [T, heads, P, width]
    results = [_attend(*trunks, mask=None, scale=scale, dropout=dropout).transpose(1, 2).flatten(0, 1)]
    if len(layout.tree):
        own = [_rows(state, layout.branches) for state in states]  # [M, heads, R, width]
        seen = [
            torch.cat([trunk.index_select(0, layout.tree), branch], dim=2)
            for trunk, branch in zip(trunks[1:], own[1:], strict=True)
        ]  # [M, heads, P + R, width]
        results.append(
            _attend(own[0], *seen, mask=layout.mask, scale=scale, dropout=dropout)
            .transpose(1, 2)
            .flatten(0, 1)
        )
    results.append(results[0].new_zeros(1, *shape[2:]))
    return torch.cat(results).index_select(0, layout.back).view(shape), None


def _attend(
    query: Tensor,  # [rows, heads, R, width]
    key: Tensor,  # [rows, key heads, S, width]
    value: Tensor,  # [rows, key heads, S, width]
    *,
    mask: Tensor | None,  # [rows or 1, 1, R, S] True where seen; None for causal
    scale: float,
    dropout: float,
) -> Tensor:  # [rows, heads, R, width]
    """Attend with whatever is fastest; each key head serves as many query heads as there are to one."""
    groups = query.shape[1] // key.shape[1]
    if query.device.type == "cpu" and query.dtype in {torch.bfloat16, torch.float16}:
        # torch's CPU kernel takes 3 to 10 times as long as plain products for the backward pass in bf16.
        if mask is None:
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()[None, None]
        return _attend_plainly(query * scale, key, value, mask, dropout)
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


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    heads = (key.shape[1], query.shape[1] // key.shape[1])
    rows = query.unflatten(1, heads).flatten(2, 3)  # [rows, key heads, groups * R, width]
    scores = (rows @ key.transpose(-1, -2)).unflatten(2, (heads[1], query.shape[2]))
    weights = scores.masked_fill(~mask[:, :, None], float("-inf")).softmax(-1, dtype=torch.float32)
    weights = functional.dropout(weights, dropout).to(value.dtype).flatten(2, 3)
    return (weights @ value).unflatten(2, (heads[1], query.shape[2])).flatten(1, 2)


def _rows(
    states: Tensor, places: Tensor
) -> Tensor:  # [B * L, heads, width], [rows, W] -> [rows, heads, W, width]
    return states.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


def _first(span: Span, width: int) -> int:
    return span.row * width + span.start


def _trunk(span: Span) -> int:
    return span.prompt + (span.responses[0] if len(span.responses) == 1 else 0)


def _padded(places: list[range]) -> Tensor:  # [rows, longest]
    longest = max(map(len, places), default=0)
    rows = [[*place, *[place.stop - 1] * (longest - len(place))] for place in places]
    return torch.tensor(rows, dtype=torch.long).reshape(len(places), longest)
