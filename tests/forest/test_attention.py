"""Forest attention equals attention with the dense mask of the forest's rule."""

from __future__ import annotations

import pytest
import torch
from forests import PAD, shapes, tree
from hypothesis import given
from hypothesis import strategies as st

from basereward.forest import pack
from basereward.forest.attention import forest_attention
from basereward.forest.layout import ForestLayout

pytestmark = pytest.mark.usefixtures("each_way_of_small_trees")


# A dropout too small to drop anything has all branches computed in one padded batch, as off the CPU.
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
    fast, _ = forest_attention(
        torch.nn.Module(), query, key, value, layout=ForestLayout(forest), dropout=dropout
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
    fast, _ = forest_attention(
        torch.nn.Module(), query, key, value, layout=ForestLayout(forest), reads_ends=True
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
    layout = ForestLayout(forest)
    exact, _ = forest_attention(torch.nn.Module(), *states, layout=layout)
    rough, _ = forest_attention(torch.nn.Module(), *(state.bfloat16() for state in states), layout=layout)
    # Inputs, weights and results are each rounded to 8 bits: 2 ** -8 of values of up to about 4, thrice.
    torch.testing.assert_close(rough.float(), exact, atol=0.06, rtol=0)
