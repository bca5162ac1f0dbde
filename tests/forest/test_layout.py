"""The layout of a forest: flat positions of prefixes, branches and ends, and the runs that a kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from forests import PAD, tree
from torch import Tensor

from basereward.forest import pack
from basereward.forest.attention import forest_attention
from basereward.forest.layout import ForestLayout
from basereward.forest.varlen_attention import PackedBlock


def test_a_small_layout_by_hand() -> None:
    # Rows of 5 tokens; the second tree has one response, so all of it is prefix.
    layout = ForestLayout(pack([tree(2, 2, 1), tree(1, 1)], pad=PAD))
    assert layout.prefixes == [range(2), range(5, 7)]
    assert layout.branches == [[range(2, 4), range(4, 5)], []]
    assert layout.ends.tolist() == [3, 4, 6]


def test_the_runs_of_a_small_layout_by_hand() -> None:
    packed = ForestLayout(pack([tree(2, 2, 1), tree(1, 1)], pad=PAD)).packed
    assert packed.ends.tolist() == [3, 4, 6]
    # Prefix, two branches, and the whole second tree; positions 7, 8 and 9 are padding.
    [own] = packed.whole.self_blocks
    assert as_lists(own) == ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [0, 2, 4, 5, 7], [0, 2, 4, 5, 7])
    assert (own.max_queries, own.max_keys, own.is_causal) == (2, 2, True)
    # Three tokens of branches see the two of their prefix.
    [shared] = packed.whole.prefix_blocks
    assert as_lists(shared) == ([2, 3, 4], [0, 1], [0, 3], [0, 2])
    assert (shared.max_queries, shared.max_keys, shared.is_causal) == (3, 2, False)
    # Three ends see their branches, or a whole tree; the first two of them a prefix as well.
    [own] = packed.of_ends.self_blocks
    assert as_lists(own) == (None, [2, 3, 4, 5, 6], [0, 1, 2, 3], [0, 2, 3, 5])
    [shared] = packed.of_ends.prefix_blocks
    assert as_lists(shared) == ([0, 1], [0, 1], [0, 2], [0, 2])


def test_without_padding_the_first_call_reads_all_where_it_lies() -> None:
    packed = ForestLayout(pack([tree(2, 2, 1), tree(1, 1)], pad=PAD, row_tokens=20)).packed
    [own] = packed.whole.self_blocks
    assert own.queries is None
    assert own.keys is None


def as_lists(block: PackedBlock) -> tuple[list[int] | None, ...]:
    tensors = (block.queries, block.keys, block.query_starts, block.key_starts)
    return tuple(None if tensor is None else tensor.tolist() for tensor in tensors)


# Two even batches, and those of training and of the server for which padding to the longest costs most.
BATCHES = {
    "8 pairs": [(2000, [400] * 2)] * 8,
    "8 best-of-16": [(2000, [400] * 16)] * 8,
    "12 pairs of an image, 4 of text": [(1100, [100, 300])] * 12 + [(60, [50, 1500])] * 4,
    "1 long prompt among 8 short": [(8000, [200, 300])] + [(300, [60, 500])] * 8,
    "199 requests of 40 tokens, 1 of 8,000": [(30, [10])] * 199 + [(8000, [100, 92])],
}


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("reads_ends", [False, True])
def test_a_long_tree_beside_short_ones_costs_no_pairs_that_nobody_needs(
    sizes: Sequence[tuple[int, list[int]]], reads_ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    class Counting:
        """Counts the pairs of query and key that a varlen kernel computes."""

        @staticmethod
        def split(blocks: Sequence[PackedBlock]) -> Sequence[PackedBlock]:
            return blocks

        @staticmethod
        def forward(
            query: Tensor, key: Tensor, value: Tensor, block: PackedBlock, scale: float
        ) -> tuple[Tensor, Tensor]:
            queries, keys = block.query_starts.diff().long(), block.key_starts.diff().long()
            pairs = queries * keys
            if block.is_causal:  # the last query sees all keys, the one before it one less
                pairs -= queries * (queries - 1) // 2
            computed.append(int(pairs.sum()))
            return torch.zeros_like(query), torch.zeros(query.shape[1], len(query))

    monkeypatch.setattr("basereward.forest.attention.packed_kernel", lambda query: Counting)
    forest = pack([tree(prompt, *others) for prompt, others in sizes], pad=PAD, row_tokens=10**9)
    states = torch.zeros(1, 1, forest.input_ids.numel(), 1)
    layout = ForestLayout(forest)
    forest_attention(torch.nn.Module(), states, states, states, layout=layout, reads_ends=reads_ends)

    # A token sees itself and all before it, of its branch and of its prefix; an end all of them.
    needed = 0
    for prompt, others in sizes:
        if reads_ends:
            needed += sum(prompt + length for length in others)
            continue
        needed += prompt * (prompt + 1) // 2
        needed += sum(length * prompt + length * (length + 1) // 2 for length in others)
    assert needed <= sum(computed) <= 1.05 * needed
