"""The index plan of a forest: flat positions of prefixes and branches, to gather and scatter by.

Shapes: B rows, L tokens in a row, N responses, T trees, P tokens of the longest prefix, M branches, R of the
longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor

from basereward.forest.forest import Forest
from basereward.forest.varlen_attention import AttentionBlock, AttentionBlocks

HIDDEN_PAIRS_A_CALL = 1024
"""Hidden pairs of query and key that a CPU computes while a call of its attention begins and ends."""


class ForestLayout:
    """The flat positions of a forest's tokens, computed once a batch for all layers.

    A tree of one response is a prefix alone: nothing branches off it.

    Attributes:
        prefixes: Flat positions in B * L of each tree's prefix.
        branches: Flat positions of each of its branches; empty for a tree of one response.
        reads_ends: Whether the last layer's states are read at `ends` only.
        kv_cache: The cache that attention fills or continues, if there is one.
    """

    def __init__(self, forest: Forest) -> None:
        width = forest.input_ids.shape[1]
        self.num_tokens = forest.input_ids.numel()
        self.device = forest.input_ids.device
        self.reads_ends = forest.reads == "ends"
        self.kv_cache = forest.kv_cache
        self.prefixes: list[range] = []
        self.branches: list[list[range]] = []
        for span in forest.spans:
            start = span.row * width + span.start
            stops = list(accumulate(span.responses, initial=start + span.prompt))
            if len(span.responses) == 1:
                self.prefixes.append(range(start, stops[-1]))
                self.branches.append([])
            else:
                self.prefixes.append(range(start, stops[0]))
                self.branches.append([range(*pair) for pair in pairwise(stops)])

    @cached_property
    def blocks(self) -> AttentionBlocks:
        """The blocks of queries and keys of all tokens; a small tree is one block with a mask."""
        self_blocks, prefix_blocks = [], []
        for prefix, branches in zip(self.prefixes, self.branches, strict=True):
            lengths = [len(run) for run in branches]
            num_hidden = sum(lengths) * (len(prefix) + sum(lengths)) - sum(length**2 for length in lengths)
            if num_hidden < HIDDEN_PAIRS_A_CALL * len(branches):
                tree = slice(prefix.start, branches[-1].stop)
                self_blocks.append(AttentionBlock(tree, tree, mask=_tree_mask(prefix, branches)))
                continue
            self_blocks += [
                AttentionBlock(_slice(run), _slice(run), True) for run in (prefix, *branches) if run
            ]
            if prefix and branches:
                queries = slice(branches[0].start, branches[-1].stop)
                prefix_blocks.append(AttentionBlock(queries, _slice(prefix)))
        return AttentionBlocks(self_blocks, prefix_blocks)

    @cached_property
    def ends(self) -> Tensor:  # [N]
        """The flat positions of the responses' last tokens, tree by tree."""
        lasts = [
            run.stop - 1
            for prefix, branches in zip(self.prefixes, self.branches, strict=True)
            for run in branches or [prefix]
        ]
        return torch.tensor(lasts, dtype=torch.long).to(self.device)

    @cached_property
    def blocks_of_ends(self) -> AttentionBlocks:
        """The blocks where the only queries are those at `ends`, numbered from 0."""
        self_blocks, prefix_blocks = [], []
        first = 0
        for prefix, branches in zip(self.prefixes, self.branches, strict=True):
            runs = branches or [prefix]
            queries = slice(first, first + len(runs))
            num_hidden = sum(map(len, branches)) * (len(branches) - 1)
            if num_hidden < HIDDEN_PAIRS_A_CALL * len(branches):
                tree = slice(prefix.start, branches[-1].stop)
                lasts = [run.stop - 1 - prefix.start for run in branches]
                self_blocks.append(AttentionBlock(queries, tree, mask=_tree_mask(prefix, branches)[lasts]))
            else:
                self_blocks += [
                    AttentionBlock(slice(number, number + 1), _slice(run))
                    for number, run in enumerate(runs, first)
                ]
                if prefix and branches:
                    prefix_blocks.append(AttentionBlock(queries, _slice(prefix)))
            first = queries.stop
        return AttentionBlocks(self_blocks, prefix_blocks)

    @cached_property
    def padded(self) -> PaddedBatches:
        """The prefixes and the branches as two padded batches."""
        return _padded_batches(self)


@dataclass(frozen=True)
class PaddedBatches:
    """Gather and scatter indices that turn a forest into two padded batches, of prefixes and of branches."""

    prefixes: Tensor  # [T, P] flat position of each prefix token; shorter prefixes repeat their last
    branches: Tensor  # [M, R] flat position of each branch token, likewise
    tree: Tensor  # [M] tree of each branch
    mask: Tensor  # [M or 1, 1, R, P + R] True where a branch token sees a token of its prefix or branch
    scatter_index: Tensor  # [B * L] each token's place among T * P + M * R results; the last for padding


def _padded_batches(layout: ForestLayout) -> PaddedBatches:
    prefixes, branches = layout.prefixes, list(chain.from_iterable(layout.branches))
    tree = [number for number, runs in enumerate(layout.branches) for _ in runs]
    prefix_index, branch_index = _pad(prefixes), _pad(branches)
    longest_prefix, longest_branch = prefix_index.shape[1], branch_index.shape[1]

    scatter_index = torch.full((layout.num_tokens,), prefix_index.numel() + branch_index.numel())
    for runs, offset, width in (
        (prefixes, 0, longest_prefix),
        (branches, prefix_index.numel(), longest_branch),
    ):
        for row, run in enumerate(runs):
            first = offset + row * width
            scatter_index[run.start : run.stop] = torch.arange(first, first + len(run))

    lengths = torch.tensor([len(prefixes[number]) for number in tree], dtype=torch.long)
    if len(lengths) and bool((lengths == longest_prefix).all()):
        lengths = lengths[:1]
    prefix_mask = torch.arange(longest_prefix) < lengths[:, None, None, None]  # [M or 1, 1, 1, P]
    causal_mask = torch.ones(longest_branch, longest_branch, dtype=torch.bool).tril()  # [R, R]
    mask = torch.cat(
        [
            prefix_mask.expand(-1, -1, longest_branch, -1),
            causal_mask.expand(len(lengths), 1, -1, -1),
        ],
        dim=-1,
    )
    tensors = (prefix_index, branch_index, torch.tensor(tree, dtype=torch.long), mask, scatter_index)
    return PaddedBatches(*(tensor.to(layout.device) for tensor in tensors))


def _tree_mask(prefix: range, branches: Sequence[range]) -> Tensor:  # [n, n] 0 where seen, else -inf
    lengths = torch.tensor([len(prefix), *map(len, branches)])
    branch = torch.arange(len(lengths)).repeat_interleave(lengths)  # [n] 0 in the prefix
    is_seen = ((branch == 0) | (branch == branch[:, None])).tril()
    return torch.zeros(is_seen.shape).masked_fill(~is_seen, float("-inf"))


def _slice(run: range) -> slice:
    return slice(run.start, run.stop)


def _pad(runs: Sequence[range]) -> Tensor:  # [rows, longest]
    longest = max(map(len, runs), default=0)
    rows = [[*run, *[run.stop - 1] * (longest - len(run))] for run in runs]
    return torch.tensor(rows, dtype=torch.long).reshape(len(runs), longest)
