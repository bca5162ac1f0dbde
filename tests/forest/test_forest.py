"""Forests: the place of every token, and which tokens see each other."""

from __future__ import annotations

import math
import re

import pytest
import torch
from forests import PAD, shapes, tree
from hypothesis import given
from hypothesis import strategies as st

from basereward.forest import Forest, Tree, pack


def test_a_small_forest_by_hand() -> None:
    forest = pack([tree(2, 2, 1), tree(1, 1)], pad=PAD)
    assert forest.input_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, PAD, PAD, PAD]]
    assert forest.branch.tolist() == [[0, 0, 1, 1, 2], [0, 1, -1, -1, -1]]
    assert forest.response.tolist() == [[-1, -1, 0, 0, 1], [-1, 2, -1, -1, -1]]
    assert forest.positions.tolist() == [[[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]]
    assert forest.ends.tolist() == [3, 4, 6]
    assert forest.lengths.tolist() == [2, 1, 1]
    assert forest.num_responses == (2, 1)
    assert forest.fill == pytest.approx(7 / 10)


def test_visibility_by_hand() -> None:
    # One prompt token, responses of two tokens and one.
    seen = pack([tree(1, 2, 1)], pad=PAD).visible()[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 0, 0, 1],
    ]


@given(shapes, st.booleans(), st.one_of(st.none(), st.integers(1, 40)))
def test_each_response_sees_itself_as_if_alone(
    sizes: list[tuple[int, list[int]]], shared: bool, row_tokens: int | None
) -> None:
    trees = [tree(prompt, *responses) for prompt, responses in sizes]
    forest = pack(trees, pad=PAD, shared=shared, row_tokens=row_tokens)
    width = forest.input_ids.shape[1]
    number = 0
    for whole in trees:
        for response in whole.responses:
            row, end = divmod(int(forest.ends[number]), width)
            seen = forest.visible()[row, 0, end].nonzero()[:, 0]
            assert forest.input_ids[row, seen].tolist() == whole.prompt + response
            assert forest.positions[0, row, seen].tolist() == list(range(len(whole.prompt) + len(response)))
            assert int(forest.lengths[number]) == len(response)
            assert (forest.response[row] == number).sum() == len(response)
            number += 1
    assert number == len(forest.ends)


@given(shapes, st.one_of(st.none(), st.integers(1, 40)))
def test_no_token_is_lost_or_doubled(sizes: list[tuple[int, list[int]]], row_tokens: int | None) -> None:
    trees = [tree(prompt, *responses) for prompt, responses in sizes]
    forest = pack(trees, pad=PAD, row_tokens=row_tokens)
    assert int((forest.branch >= 0).sum()) == sum(map(len, trees))
    assert bool((forest.input_ids[forest.branch < 0] == PAD).all())
    if row_tokens is not None:
        longest = max(map(len, trees))
        assert forest.input_ids.shape[1] <= max(row_tokens, longest)


def test_no_limit_puts_all_trees_into_one_row_in_their_order() -> None:
    forest = pack([tree(2, 2, 1), tree(1, 1), tree(3, 1, 1)], pad=PAD, row_tokens=math.inf)
    assert forest.tree.tolist() == [[0] * 5 + [1] * 2 + [2] * 5]
    assert forest.ends.tolist() == [3, 4, 6, 10, 11]


def test_media_follow_the_order_of_the_rows() -> None:
    # Rows of 6 tokens: trees 0 and 2 share the first row, so their images come before tree 1's.
    trees = [
        Tree([0], [[1]], torch.zeros(1, 1, dtype=torch.long), 1, {"image": torch.tensor([[float(number)]])})
        for number in range(2)
    ]
    long = Tree([0] * 4, [[1]], torch.zeros(1, 4, dtype=torch.long), 4, {"image": torch.tensor([[9.0]])})
    forest = pack([trees[0], long, trees[1]], pad=PAD, row_tokens=6)
    assert forest.media["image"][:, 0].tolist() == [0.0, 1.0, 9.0]
    assert forest.tree[:, 0].tolist() == [0, 1]


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="a forest needs at least one tree"):
        pack([], pad=PAD)


def test_a_forest_moves_whole() -> None:
    forest = pack([tree(1, 1)], pad=PAD).to("meta")
    assert isinstance(forest, Forest)
    assert {value.device.type for value in vars(forest).values() if isinstance(value, torch.Tensor)} == {
        "meta"
    }


def test_whole_sequences_share_what_all_of_them_begin_with() -> None:
    tree = Tree.of_sequences([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]])
    assert (tree.prompt, tree.responses, tree.start) == ([1, 2], [[3, 4], [5], [3]], 2)
    # The second is the beginning of the first, and keeps its last token.
    tree = Tree.of_sequences([[1, 2, 3], [1, 2]])
    assert (tree.prompt, tree.responses) == ([1], [[2, 3], [2]])


@pytest.mark.parametrize(("sequences", "lengths"), [([], "[]"), ([[1], []], "[1, 0]")])
def test_sequences_without_tokens_make_no_tree(sequences: list[list[int]], lengths: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"needs sequences of 1 token or more, not {lengths}")):
        Tree.of_sequences(sequences)
