"""The layout of a forest: the blocks that attention computes, made once a batch for all layers.

Shapes: B rows, L tokens in a row, N responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from basereward.forest.forest import Forest
from basereward.forest.packed_runs import PackedRuns, packed_runs
from basereward.forest.varlen_attention import AttentionBlock, AttentionBlocks

HIDDEN_PAIRS_A_CALL = 1024
"""Hidden pairs of query and key that a CPU computes while a call of its attention begins and ends."""


class ForestLayout:
    """The flat positions of a forest's tokens, computed once a batch for all layers.

    A tree of one response is a prefix alone: nothing branches off it.

    Attributes:
        prefixes: Flat positions in B * L of each tree's prefix.
        branches: Flat positions of each of its branches; empty for a tree of one response.
        ends: The flat positions [N] of the responses' last tokens, tree by tree.
        reads_ends: Whether the last layer's states are read at `ends` only.
        kv_cache: The cache that attention fills or continues, if there is one.
    """

    def __init__(self, forest: Forest) -> None:
        self._num_tokens = forest.input_ids.numel()
        self._packed = forest.packed
        self._device = forest.input_ids.device
        # Off the CPU a mask would have to be copied there while all waits.
        self._hidden_pairs_a_call = HIDDEN_PAIRS_A_CALL if self._device.type == "cpu" else 0
        self.reads_ends = forest.reads == "ends"
        self.kv_cache = forest.kv_cache
        self.prefixes, self.branches = forest.runs()
        self.ends = self._ends() if self._packed is None else self._packed.ends

    @cached_property
    def blocks(self) -> AttentionBlocks[AttentionBlock]:
        """The blocks of queries and keys of all tokens; a small tree is one block with a mask."""
        self_blocks, prefix_blocks = [], []
        for prefix, branches in zip(self.prefixes, self.branches, strict=True):
            lengths = [len(run) for run in branches]
            num_hidden = sum(lengths) * (len(prefix) + sum(lengths)) - sum(length**2 for length in lengths)
            if num_hidden < self._hidden_pairs_a_call * len(branches):
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

    @property
    def packed(self) -> PackedRuns:
        """The runs of all tokens and of the ends, for a kernel that takes them in one call."""
        # No cached_property, whose lock torch.compile can't look into.
        if self._packed is None:
            self._packed = packed_runs(self.prefixes, self.branches, self._num_tokens)
        return self._packed

    @cached_property
    def blocks_of_ends(self) -> AttentionBlocks[AttentionBlock]:
        """The blocks where the only queries are those at `ends`, numbered from 0."""
        self_blocks, prefix_blocks = [], []
        first = 0
        for prefix, branches in zip(self.prefixes, self.branches, strict=True):
            runs = branches or [prefix]
            queries = slice(first, first + len(runs))
            num_hidden = sum(map(len, branches)) * (len(branches) - 1)
            if num_hidden < self._hidden_pairs_a_call * len(branches):
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

    def _ends(self) -> Tensor:  # [N]
        lasts = [
            run.stop - 1
            for prefix, branches in zip(self.prefixes, self.branches, strict=True)
            for run in branches or [prefix]
        ]
        return torch.tensor(lasts, dtype=torch.long).to(self._device)


def _tree_mask(prefix: range, branches: Sequence[range]) -> Tensor:  # [n, n] 0 where seen, else -inf
    lengths = torch.tensor([len(prefix), *map(len, branches)])
    branch = torch.arange(len(lengths)).repeat_interleave(lengths)  # [n] 0 in the prefix
    is_seen = ((branch == 0) | (branch == branch[:, None])).tril()
    return torch.zeros(is_seen.shape).masked_fill(~is_seen, float("-inf"))


def _slice(run: range) -> slice:
    return slice(run.start, run.stop)
