"""Forest attention: the forest's rule of visibility, computed without the pairs of tokens that it hides.

A dense mask over a row of one prompt and N responses computes N * R more columns for each response token than
it may see. Here a prompt attends to itself, and its responses to it and to themselves: on a CPU piece by
piece, elsewhere all prompts of a batch in one causal call, and all responses as the rows of a second one,
whose keys are their prompt and their own tokens. transformers reaches it by its name, through
`AttentionInterface`.

Shapes: B rows, L tokens in a row, N responses, T trees, P tokens of the longest trunk, M branches, R of the
longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest.forest import Forest
from basereward.forest.varlen_attention import Piece, Pieces, attend

NAME = "basereward_forest"


class Layout:
    """Where attention finds a forest's tokens, worked out once a batch for all layers.

    A tree of one response is all trunk: nothing branches off it.

    Args:
        forest: The tokens.

    Attributes:
        trunks: Places in B * L of each tree's trunk.
        branches: Places of each of its branches; none of a tree of one response.
        reads_ends: Whether nothing but `ends` is read of the last layer.
        memory: Where keys and values are kept, if responses are to go on.
    """

    def __init__(self, forest: Forest) -> None:
        width = forest.input_ids.shape[1]
        self.num_tokens = forest.input_ids.numel()
        self.device = forest.input_ids.device
        self.reads_ends = forest.reads == "ends"
        self.memory = forest.memory
        self.trunks: list[range] = []
        self.branches: list[list[range]] = []
        for span in forest.spans:
            start = span.row * width + span.start
            stops = list(accumulate(span.responses, initial=start + span.prompt))
            if len(span.responses) == 1:
                self.trunks.append(range(start, stops[-1]))
                self.branches.append([])
            else:
                self.trunks.append(range(start, stops[0]))
                self.branches.append([range(*pair) for pair in pairwise(stops)])

    @cached_property
    def pieces(self) -> Pieces:
        """What every token sees."""
        own, shared = [], []
        for trunk, branches in zip(self.trunks, self.branches, strict=True):
            own += [Piece(_slice(run), _slice(run), True) for run in (trunk, *branches) if run]
            if trunk and branches:
                shared.append(Piece(slice(branches[0].start, branches[-1].stop), _slice(trunk)))
        return Pieces(own, shared)

    @cached_property
    def ends(self) -> Tensor:  # [N]
        """The places of the responses' last tokens, tree by tree."""
        lasts = [
            run.stop - 1
            for trunk, branches in zip(self.trunks, self.branches, strict=True)
            for run in branches or [trunk]
        ]
        return torch.tensor(lasts, dtype=torch.long).to(self.device)

    @cached_property
    def pieces_of_ends(self) -> Pieces:
        """What the tokens at `ends` see, the first of which has the place 0 among the queries."""
        own: list[Piece] = []
        shared = []
        for trunk, branches in zip(self.trunks, self.branches, strict=True):
            if trunk and branches:
                shared.append(Piece(slice(len(own), len(own) + len(branches)), _slice(trunk)))
            for run in branches or [trunk]:
                own.append(Piece(slice(len(own), len(own) + 1), _slice(run)))
        return Pieces(own, shared)

    @cached_property
    def batched(self) -> Batched:
        """Trunks and branches as two batches."""
        return _batched(self)


@dataclass(frozen=True)
class Batched:
    """A forest's tokens as two batches, one of trunks and one of branches."""

    trunks: Tensor  # [T, P] place of each trunk token in B * L; the shorter ones repeat their last
    branches: Tensor  # [M, R] place of each branch token, likewise
    tree: Tensor  # [M] tree of each branch
    mask: Tensor  # [M or 1, 1, R, P + R] what each branch token may see of its trunk and branch
    back: Tensor  # [B * L] where each token's result is among T * P + M * R; the last is for padding


def _batched(layout: Layout) -> Batched:
    trunks, branches = layout.trunks, list(chain.from_iterable(layout.branches))
    tree = [number for number, own in enumerate(layout.branches) for _ in own]
    trunk_places, branch_places = _padded(trunks), _padded(branches)
    longest, longest_branch = trunk_places.shape[1], branch_places.shape[1]

    back = torch.full((layout.num_tokens,), trunk_places.numel() + branch_places.numel())
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
    return Batched(*(tensor.to(layout.device) for tensor in tensors))


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
    if layout.memory is not None:
        if layout.memory.holds(module):
            return layout.memory.attend(module, query, key, value, scale=scale).view(shape), None
        layout.memory.record(module, layout, key, value)
    if query.device.type != "cpu" or dropout:
        return _in_batches(query, key, value, layout.batched, scale=scale, dropout=dropout).view(shape), None
    if not reads_ends:
        return attend(query, key, value, layout.pieces, scale=scale).view(shape), None
    found = attend(query.index_select(0, layout.ends), key, value, layout.pieces_of_ends, scale=scale)
    return query.new_zeros(query.shape).index_copy(0, layout.ends, found).view(shape), None


def _in_batches(
    query: Tensor,  # [B * L, heads, width]
    key: Tensor,  # [B * L, key heads, width]
    value: Tensor,  # [B * L, key heads, width]
    places: Batched,
    *,
    scale: float,
    dropout: float,
) -> Tensor:  # [B * L, heads, width]
    states = (query, key, value)
    trunks = [_rows(state, places.trunks) for state in states]  # [T, heads, P, width]
    results = [_attend(*trunks, mask=None, scale=scale, dropout=dropout).transpose(1, 2).flatten(0, 1)]
    if len(places.tree):
        own = [_rows(state, places.branches) for state in states]  # [M, heads, R, width]
        seen = [
            torch.cat([trunk.index_select(0, places.tree), branch], dim=2)
            for trunk, branch in zip(trunks[1:], own[1:], strict=True)
        ]  # [M, heads, P + R, width]
        results.append(
            _attend(own[0], *seen, mask=places.mask, scale=scale, dropout=dropout)
            .transpose(1, 2)
            .flatten(0, 1)
        )
    results.append(results[0].new_zeros(1, *query.shape[1:]))
    return torch.cat(results).index_select(0, places.back)


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


def _rows(
    states: Tensor, places: Tensor
) -> Tensor:  # [B * L, heads, width], [rows, W] -> [rows, heads, W, width]
    return states.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


def _slice(run: range) -> slice:
    return slice(run.start, run.stop)


def _padded(places: list[range]) -> Tensor:  # [rows, longest]
    longest = max(map(len, places), default=0)
    rows = [[*place, *[place.stop - 1] * (longest - len(place))] for place in places]
    return torch.tensor(rows, dtype=torch.long).reshape(len(places), longest)
