"""Forest attention equals attention with the dense mask of the forest's rule, in results and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from forests import PAD, shapes, tree
from hypothesis import example, given
from hypothesis import strategies as st
from rounding import rounding_bound
from torch import Tensor

from basereward.forest import Forest, pack
from basereward.forest.attention import forest_attention
from basereward.forest.layout import ForestLayout

pytestmark = pytest.mark.usefixtures("each_way_of_attending")

Sizes = list[tuple[int, list[int]]]

dtypes = st.sampled_from([torch.float64, torch.float32])
rows = st.one_of(st.none(), st.integers(1, 40))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Return how far attention or a gradient may lie from that of a mask.

    Values and gradients are of up to about 4, with factors of as much. One is a mean over up to 25 tokens,
    weighted by exponentials of products over 8, and the gradient of a prefix a sum over up to 20 others.
    """
    return {"atol": rounding_bound(100, dtype, magnitude=16), "rtol": 0.0}


def packed(sizes: Sizes, shared: bool = True, row_tokens: int | None = None) -> Forest:
    return pack(
        [tree(prompt, *others) for prompt, others in sizes], pad=PAD, shared=shared, row_tokens=row_tokens
    )


def states_of(forest: Forest, heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Return queries of some heads, and keys and values of two."""
    torch.manual_seed(0)
    batch, length = forest.input_ids.shape
    return [torch.randn(batch, number, length, 8, dtype=dtype).requires_grad_() for number in (heads, 2, 2)]


def attended(forest: Forest, states: list[Tensor], **options: Any) -> Tensor:  # [B, L, heads, 8]
    return forest_attention(torch.nn.Module(), *states, layout=ForestLayout(forest), **options)[0]


def masked(forest: Forest, states: list[Tensor]) -> Tensor:  # [B, L, heads, 8]
    """Attend with the dense mask, in fp64."""
    query, key, value = (state.double() for state in states)
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=forest.visible(), enable_gqa=True
    )
    return output.transpose(1, 2)


def assert_gradients_equal(fast: Tensor, dense: Tensor, states: list[Tensor]) -> None:
    """Compare the gradients of a sum that weighs results unequally."""
    weights = torch.randn_like(dense)
    found = torch.autograd.grad((fast * weights.to(fast.dtype)).sum(), states)
    expected = torch.autograd.grad((dense * weights).sum(), states)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), other.double(), **tolerance(gradient.dtype))


@given(shapes, st.booleans(), rows, dtypes, st.sampled_from([2, 4, 6]))
@example([(0, [2, 1]), (3, [2, 2])], True, 40, torch.float64, 4)
@example([(0, [2, 1]), (0, [3])], True, 40, torch.float64, 4)
@example([(4, [1]), (2, [3])], True, 40, torch.float64, 4)
def test_forest_attention_equals_the_dense_mask(
    sizes: Sizes, shared: bool, row_tokens: int | None, dtype: torch.dtype, heads: int
) -> None:
    forest = packed(sizes, shared, row_tokens)
    states = states_of(forest, heads, dtype)
    fast, dense = attended(forest, states), masked(forest, states)
    real = forest.branch >= 0
    torch.testing.assert_close(fast[real].double(), dense[real], **tolerance(dtype))
    assert bool((fast[~real] == 0).all())
    assert_gradients_equal(fast[real], dense[real], states)


@given(shapes, st.booleans(), rows, dtypes)
@example([(0, [2, 1]), (3, [2, 2]), (1, [1])], True, 40, torch.float64)
@example([(0, [2, 1]), (0, [3])], True, 40, torch.float64)
def test_attention_of_the_ends_alone_equals_the_dense_mask(
    sizes: Sizes, shared: bool, row_tokens: int | None, dtype: torch.dtype
) -> None:
    forest = packed(sizes, shared, row_tokens)
    states = states_of(forest, 4, dtype)
    fast, dense = (
        attended(forest, states, reads_ends=True).flatten(0, 1),
        masked(forest, states).flatten(0, 1),
    )
    torch.testing.assert_close(fast[forest.ends].double(), dense[forest.ends], **tolerance(dtype))
    others = torch.ones(len(fast), dtype=torch.bool).index_fill(0, forest.ends, False)
    assert bool((fast[others] == 0).all())
    assert_gradients_equal(fast[forest.ends], dense[forest.ends], states)


@given(shapes)
def test_in_bf16_forest_attention_stays_within_the_rounding_of_plain_attention(sizes: Sizes) -> None:
    forest = packed(sizes)
    states = states_of(forest, 4, torch.float32)
    exact = attended(forest, states)
    rough = attended(forest, [state.bfloat16() for state in states])
    # Inputs, weights and results are each rounded to 8 bits: 2 ** -8 of values of up to about 4, thrice.
    torch.testing.assert_close(rough.float(), exact, atol=0.06, rtol=0)


def test_attention_by_matrix_products_keeps_the_precision_that_it_is_given() -> None:
    # As a GPU computes in fp32, for which FlashAttention has no kernel.
    from basereward.forest.block_kernels import Matmul
    from basereward.forest.varlen_attention import attend

    forest = packed([(5, [3, 4]), (2, [1])], row_tokens=40)
    states = states_of(forest, 4, torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("basereward.forest.layout.HIDDEN_PAIRS_A_CALL", 0)
        blocks = ForestLayout(replace(forest)).blocks
    flat = [state.transpose(1, 2).flatten(0, 1) for state in states]
    fast = attend(*flat, blocks, scale=8**-0.5, kernel=Matmul)
    dense = masked(forest, states).flatten(0, 1)
    torch.testing.assert_close(fast, dense, **tolerance(torch.float64))
    assert_gradients_equal(fast, dense, states)
