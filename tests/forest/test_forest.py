"""Forests: where every token goes, and which tokens see each other."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from basereward.forest import Forest, Tree, attention, pack

PAD = 99


def tree(prompt: int, *responses: int) -> Tree:
    """Return a tree of given lengths whose token ids tell its tokens apart."""
    ids = iter(range(1000))
    lists = [[next(ids) for _ in range(length)] for length in (prompt, *responses)]
    return Tree.of_text(lists[0], lists[1:])


lengths = st.integers(1, 5)
shapes = st.lists(st.tuples(lengths, st.lists(lengths, min_size=1, max_size=4)), min_size=1, max_size=5)


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
    assert int((forest.branch >= 0).sum()) == sum(len(one) for one in trees)
    assert bool((forest.input_ids[forest.branch < 0] == PAD).all())
    if row_tokens is not None:
        longest = max(map(len, trees))
        assert forest.input_ids.shape[1] <= max(row_tokens, longest)


# A dropout too small to drop anything has all branches computed in one batch, as off the CPU.
@given(shapes, st.booleans(), st.one_of(st.none(), st.integers(1, 40)), st.sampled_from([0.0, 1e-15]))
def test_forest_attention_equals_the_dense_mask(
    sizes: list[tuple[int, list[int]]], shared: bool, row_tokens: int | None, dropout: float
) -> None:
    trees = [tree(prompt, *responses) for prompt, responses in sizes]
    forest = pack(trees, pad=PAD, shared=shared, row_tokens=row_tokens)
    torch.manual_seed(0)
    batch, length = forest.input_ids.shape
    query = torch.randn(batch, 4, length, 8, dtype=torch.float64)
    key, value = (torch.randn(batch, 2, length, 8, dtype=torch.float64) for _ in range(2))
    fast, _ = attention.forest_attention(
        torch.nn.Module(), query, key, value, layout=attention.Layout(forest), dropout=dropout
    )
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=forest.visible()
    ).transpose(1, 2)
    real = forest.branch >= 0
    torch.testing.assert_close(fast[real], dense[real])
    assert bool((fast[~real] == 0).all())


@given(shapes, st.booleans(), st.one_of(st.none(), st.integers(1, 40)))
def test_attention_of_the_ends_alone_equals_the_dense_mask(
    sizes: list[tuple[int, list[int]]], shared: bool, row_tokens: int | None
) -> None:
    trees = [tree(prompt, *responses) for prompt, responses in sizes]
    forest = pack(trees, pad=PAD, shared=shared, row_tokens=row_tokens)
    torch.manual_seed(0)
    batch, length = forest.input_ids.shape
    query, key, value = (torch.randn(batch, 2, length, 8, dtype=torch.float64) for _ in range(3))
    fast, _ = attention.forest_attention(
        torch.nn.Module(), query, key, value, layout=attention.Layout(forest), reads_ends=True
    )
    dense = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=forest.visible())
    fast, dense = fast.flatten(0, 1), dense.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(fast[forest.ends], dense[forest.ends])
    others = torch.ones(len(fast), dtype=torch.bool).index_fill(0, forest.ends, False)
    assert bool((fast[others] == 0).all())


@given(shapes)
def test_in_bf16_forest_attention_stays_within_the_rounding_of_plain_attention(
    sizes: list[tuple[int, list[int]]],
) -> None:
    forest = pack([tree(prompt, *responses) for prompt, responses in sizes], pad=PAD)
    torch.manual_seed(0)
    batch, length = forest.input_ids.shape
    states = [torch.randn(batch, heads, length, 8) for heads in (4, 2, 2)]
    place = attention.Layout(forest)
    exact, _ = attention.forest_attention(torch.nn.Module(), *states, layout=place)
    rough, _ = attention.forest_attention(
        torch.nn.Module(), *(state.bfloat16() for state in states), layout=place
    )
    # Inputs, weights and results are each rounded to 8 bits: 2 ** -8 of values of up to about 4, thrice.
    torch.testing.assert_close(rough.float(), exact, atol=0.06, rtol=0)


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
