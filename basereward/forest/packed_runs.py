"""The runs of a forest's tokens as a varlen kernel takes them: all of a layer's attention in two calls.

In the first call each prefix and each branch attends to itself, causally and in place. In the second one the
branches of a tree, which lie one after the other, attend to its prefix. Where the ends alone are read, they
are the queries.

Shapes: N responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from basereward.forest.varlen_attention import AttentionBlocks, PackedBlock


@dataclass(frozen=True)
class PackedRuns:
    """The runs of a forest, which are made on the CPU and move with it.

    Args:
        whole: The blocks of all tokens.
        of_ends: The blocks where the only queries are the ends, in the order of `ends`.
        ends: The flat positions of the responses' last tokens, tree by tree.
    """

    whole: AttentionBlocks[PackedBlock]
    of_ends: AttentionBlocks[PackedBlock]
    ends: Tensor  # [N]

    def moved(self, move: Callable[[Tensor], Tensor]) -> PackedRuns:
        """Return the same with each tensor moved."""

        def blocks(given: AttentionBlocks[PackedBlock]) -> AttentionBlocks[PackedBlock]:
            return AttentionBlocks(*([moved(block) for block in kind] for kind in given))

        def moved(block: PackedBlock) -> PackedBlock:
            queries, keys = (None if rows is None else move(rows) for rows in (block.queries, block.keys))
            query_starts, key_starts = move(block.query_starts), move(block.key_starts)
            return block._replace(
                queries=queries, keys=keys, query_starts=query_starts, key_starts=key_starts
            )

        return PackedRuns(blocks(self.whole), blocks(self.of_ends), move(self.ends))


def packed_runs(
    prefixes: Sequence[range], branches: Sequence[Sequence[range]], num_tokens: int
) -> PackedRuns:
    """Return the runs of trees in a forest.

    Args:
        prefixes: Flat positions of each tree's prefix, in ascending order.
        branches: Flat positions of each of its branches, one after the other behind it.
        num_tokens: Positions of the forest, padding included, which is in no run.
    """
    trees = list(zip(prefixes, branches, strict=True))
    runs = [run for prefix, others in trees for run in (prefix, *others) if run]
    read = [run for prefix, others in trees for run in others or [prefix]]
    # The queries of a tree are all of its branches, among the ends as many as it has.
    branching = [(prefix, others) for prefix, others in trees if prefix and others]
    shared = [range(others[0].start, others[-1].stop) for _, others in branching]
    first_end = list(accumulate((len(others) or 1 for _, others in trees), initial=0))
    shared_ends = [
        range(first, first + len(others))
        for first, (prefix, others) in zip(first_end, trees, strict=False)
        if prefix and others
    ]
    shared_prefixes = [prefix for prefix, _ in branching]

    everywhere = None if sum(map(len, runs)) == num_tokens else _positions(runs)
    self_block = _block(everywhere, everywhere, runs, runs, is_causal=True)
    # The one query sees all of its branch, as the last of it does.
    end_runs = [range(number, number + 1) for number in range(len(read))]
    end_block = _block(None, _positions(read), end_runs, read)
    if not shared:
        whole, of_ends = AttentionBlocks([self_block], []), AttentionBlocks([end_block], [])
    else:
        keys = _positions(shared_prefixes)
        prefix_block = _block(_positions(shared), keys, shared, shared_prefixes)
        end_prefix_block = _block(_positions(shared_ends), keys, shared_ends, shared_prefixes)
        whole = AttentionBlocks([self_block], [prefix_block])
        of_ends = AttentionBlocks([end_block], [end_prefix_block])
    return PackedRuns(whole, of_ends, torch.tensor([run.stop - 1 for run in read]))


def _block(
    queries: Tensor | None,
    keys: Tensor | None,
    query_runs: Sequence[range],
    key_runs: Sequence[range],
    *,
    is_causal: bool = False,
) -> PackedBlock:
    max_queries, max_keys = (max(map(len, runs)) for runs in (query_runs, key_runs))
    return PackedBlock(
        queries, keys, _starts(query_runs), _starts(key_runs), max_queries, max_keys, is_causal
    )


def _positions(runs: Sequence[range]) -> Tensor:  # [tokens]
    return torch.cat([torch.arange(run.start, run.stop) for run in runs])


def _starts(runs: Sequence[range]) -> Tensor:  # [runs + 1] int32
    return torch.tensor(list(accumulate(map(len, runs), initial=0)), dtype=torch.int32)
