"""Varlen attention equals attention with a dense mask, in results and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounding_bound
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from basereward.forest.block_kernels import QUERY_CHUNK, Matmul, block_kernel
from basereward.forest.varlen_attention import AttentionBlock, AttentionBlocks, Kernel, attend

PROMPT, RESPONSES = 7, (5, 1, 4)
LENGTH = PROMPT + sum(RESPONSES)


def tree(prompt: int = PROMPT, responses: tuple[int, ...] = RESPONSES) -> AttentionBlocks:
    """Return the blocks of a tree."""
    self_blocks, start = [AttentionBlock(slice(0, prompt), slice(0, prompt), True)], prompt
    for length in responses:
        run = slice(start, start + length)
        self_blocks.append(AttentionBlock(run, run, True))
        start += length
    return AttentionBlocks(self_blocks, [AttentionBlock(slice(prompt, start), slice(0, prompt))])


def mask_of(blocks: AttentionBlocks, num_queries: int, num_keys: int) -> Tensor:
    seen = torch.zeros(num_queries, num_keys, dtype=torch.bool)
    for queries, keys, is_causal, mask in (*blocks.self_blocks, *blocks.prefix_blocks):
        if mask is not None:
            seen[queries, keys] = mask == 0
            continue
        ones = torch.ones_like(seen[queries, keys])
        seen[queries, keys] = ones.tril(ones.shape[1] - ones.shape[0]) if is_causal else ones
    return seen


def masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend with a mask over everything, in fp64."""
    states = [state.double().transpose(0, 1)[None] for state in (query, key, value)]
    output = scaled_dot_product_attention(*states, attn_mask=mask, scale=scale, enable_gqa=True)
    return output[0].transpose(0, 1)


def states(num_queries: int, num_keys: int, dtype: torch.dtype, heads: int = 4) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(num_queries, heads, 8), (num_keys, 2, 8), (num_keys, 2, 8)]
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def assert_alike(
    blocks: AttentionBlocks, given: list[Tensor], atol: float, kernel: Kernel[AttentionBlock] | None = None
) -> None:
    """Compare results and gradients with those of a mask."""
    mask = mask_of(blocks, len(given[0]), len(given[1]))
    output, expected = (
        attend(*given, blocks, scale=0.3, kernel=kernel or block_kernel(given[0])),
        masked(*given, mask, 0.3),
    )
    torch.testing.assert_close(output.double(), expected, atol=atol, rtol=0)
    grad_output = torch.randn_like(expected)
    gradients = torch.autograd.grad(output, given, grad_output.to(output.dtype))
    expected_gradients = torch.autograd.grad(expected, given, grad_output)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), other.double(), atol=atol, rtol=0)


# Values and gradients are of up to about 8. One is a mean of up to 53 values, weighted by exponentials of
# products over 8: some 100 roundings. In bf16 only weights and results are rounded to it, sums are in fp32.
FP64 = rounding_bound(100, torch.float64, magnitude=8)
BF16 = rounding_bound(2, torch.bfloat16, magnitude=8)
DTYPES = [(torch.float64, FP64), (torch.float32, rounding_bound(100, magnitude=8)), (torch.bfloat16, BF16)]


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
@pytest.mark.parametrize("heads", [2, 4, 6])
def test_a_tree_equals_its_mask(dtype: torch.dtype, atol: float, heads: int) -> None:
    assert_alike(tree(), states(LENGTH, LENGTH, dtype, heads), atol)


@given(st.integers(1, 20), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_tree_equals_its_mask(prompt: int, responses: list[int]) -> None:
    length = prompt + sum(responses)
    assert_alike(tree(prompt, tuple(responses)), states(length, length, torch.float64), FP64)


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
def test_the_last_tokens_alone_see_what_they_see_in_the_whole(dtype: torch.dtype, atol: float) -> None:
    # The responses' last tokens are queries 0, 1 and 2; their own tokens begin at 7, 12 and 13.
    self_blocks = [
        AttentionBlock(slice(0, 1), slice(7, 12)),
        AttentionBlock(slice(1, 2), slice(12, 13)),
        AttentionBlock(slice(2, 3), slice(13, 17)),
    ]
    blocks = AttentionBlocks(self_blocks, [AttentionBlock(slice(0, 3), slice(0, 7))])
    query, key, value = states(LENGTH, LENGTH, dtype)
    ends = query.detach()[[11, 12, 16]].requires_grad_()
    assert_alike(blocks, [ends, key, value], atol)
    whole = attend(query, key, value, tree(), scale=0.3, kernel=block_kernel(query))
    torch.testing.assert_close(
        attend(ends, key, value, blocks, scale=0.3, kernel=block_kernel(ends)),
        whole[[11, 12, 16]],
        atol=atol,
        rtol=0,
    )


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
@pytest.mark.parametrize("num_queries", [LENGTH, 3])
def test_a_block_with_a_mask_equals_attention_with_the_mask(
    dtype: torch.dtype, atol: float, num_queries: int
) -> None:
    seen = mask_of(tree(), LENGTH, LENGTH)[-num_queries:]
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    # Behind a run that it doesn't see.
    shifted = AttentionBlock(slice(0, num_queries), slice(2, LENGTH + 2), mask=mask)
    assert_alike(AttentionBlocks([shifted], []), states(num_queries, LENGTH + 2, dtype), atol)


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
def test_more_queries_than_a_chunk_are_computed_chunk_by_chunk(dtype: torch.dtype, atol: float) -> None:
    # Matrix products are what a GPU computes with where FlashAttention has no kernel.
    length = 2 * QUERY_CHUNK + 3
    assert_alike(tree(length, (3,)), states(length + 3, length + 3, dtype), atol, Matmul)


def test_queries_in_no_block_get_zeros_and_give_no_gradient() -> None:
    query, key, value = states(LENGTH + 2, LENGTH, torch.float32)
    output = attend(query, key, value, tree(), scale=0.3, kernel=block_kernel(query))
    assert not output[LENGTH:].any()
    output.sum().backward()
    assert query.grad is not None
    assert not query.grad[LENGTH:].any()


def test_states_that_do_not_lie_in_one_run_are_read_where_they_lie() -> None:
    given = [
        state.detach().transpose(0, 1).contiguous().transpose(0, 1) for state in states(17, 17, torch.float32)
    ]
    assert not given[0].is_contiguous()
    assert_alike(tree(), [state.requires_grad_() for state in given], 1e-5)
