"""Varlen attention: blocks of queries and keys, read in place without padding, with log-sum-exp merge.

For CPUs, where copying keys costs about as much as reading them. A query may have keys in two blocks; the two
outputs are merged by their log-sum-exp (as in arXiv 2205.14135, section 3.1), and the backward pass needs
only the merged output and log-sum-exp.

Shapes: Q queries, K keys, n and m those of a block, w width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERY_CHUNK = 256
"""Queries whose weights are held in memory at a time where matrix products compute them."""


class AttentionBlock(NamedTuple):
    """A run of queries and the run of keys that they see.

    Args:
        queries: Positions of the queries.
        keys: Positions of the keys.
        is_causal: Whether the last query sees all keys, and each one before it one key less.
        mask: Else what is added to the scores, in fp32: 0 where a key is seen, -inf where it is hidden.
    """

    queries: slice
    keys: slice
    is_causal: bool = False
    mask: Tensor | None = None  # [n, m]


class AttentionBlocks(NamedTuple):
    """All visible blocks.

    Args:
        self_blocks: Blocks of a run with itself; each query is in exactly one of them.
        prefix_blocks: Blocks of branches with their prefix; each query is in at most one of them.
    """

    self_blocks: Sequence[AttentionBlock]
    prefix_blocks: Sequence[AttentionBlock]


def attend(
    query: Tensor,  # [Q, heads, w]
    key: Tensor,  # [K, key heads, w]
    value: Tensor,  # [K, key heads, w]
    blocks: AttentionBlocks,
    *,
    scale: float,
) -> Tensor:  # [Q, heads, w]
    """Attend within blocks; queries that are in no block get zeros."""
    output: Tensor = _Attention.apply(query, key, value, blocks, scale)
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: AttentionBlocks, scale: float
    ) -> Tensor:
        kernel = _kernel(query)
        output = torch.zeros_like(query, memory_format=torch.contiguous_format)
        lse = query.new_zeros(query.shape[1], len(query), dtype=_lse_dtype(query))  # [heads, Q] log-sum-exp
        for block in kernel.split(blocks.self_blocks):
            part, part_lse = kernel.forward(
                query[block.queries], key[block.keys], value[block.keys], block, scale
            )
            output[block.queries], lse[:, block.queries] = part, part_lse
        for block in kernel.split(blocks.prefix_blocks):
            part, part_lse = kernel.forward(
                query[block.queries], key[block.keys], value[block.keys], block, scale
            )
            self_lse = lse[:, block.queries]
            merged = torch.logaddexp(self_lse, part_lse)
            output[block.queries] *= (self_lse - merged).exp().T[..., None]
            output[block.queries] += part * (part_lse - merged).exp().T[..., None]
            lse[:, block.queries] = merged
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.blocks, ctx.scale = blocks, scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        kernel = _kernel(query)
        gradients = [
            torch.zeros_like(state, memory_format=torch.contiguous_format) for state in (query, key, value)
        ]
        for block in kernel.split((*ctx.blocks.self_blocks, *ctx.blocks.prefix_blocks)):
            queries, keys = block.queries, block.keys
            parts = kernel.backward(
                grad_output[queries],
                query[queries],
                key[keys],
                value[keys],
                output[queries],
                lse[:, queries],
                block,
                ctx.scale,
            )
            for total, run, part in zip(gradients, (queries, keys, keys), parts, strict=True):
                total[run] += part
        return (*gradients, None, None)


class _Flash:
    """torch's own kernel for CPUs, which stores no attention weights."""

    @staticmethod
    def split(blocks: Sequence[AttentionBlock]) -> Sequence[AttentionBlock]:
        return blocks

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *map(_heads_first, (query, key, value)),
            0.0,
            block.is_causal,
            attn_mask=_mask(block, query),
            scale=scale,
        )
        return output[0].transpose(0, 1), lse[0]

    @staticmethod
    def backward(
        grad_output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        lse: Tensor,
        block: AttentionBlock,
        scale: float,
    ) -> Iterator[Tensor]:
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *map(_heads_first, (grad_output, query, key, value, output)),
            lse[None],
            0.0,
            block.is_causal,
            attn_mask=_mask(block, query),
            scale=scale,
        )
        return (gradient[0].transpose(0, 1) for gradient in gradients)


class _Matmul:
    """Matrix products, which in bf16 are 3 to 10 times as fast as torch's kernel in the backward pass."""

    @staticmethod
    def split(blocks: Sequence[AttentionBlock]) -> Iterator[AttentionBlock]:
        for queries, keys, is_causal, mask in blocks:
            if mask is not None:
                yield AttentionBlock(queries, keys, mask=mask)
                continue
            num_hidden = keys.stop - keys.start - (queries.stop - queries.start)
            for start in range(queries.start, queries.stop, QUERY_CHUNK):
                stop = min(start + QUERY_CHUNK, queries.stop)
                last_key = keys.start + num_hidden + stop - queries.start if is_causal else keys.stop
                yield AttentionBlock(slice(start, stop), slice(keys.start, last_key), is_causal)

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        scores = _scores(query, key, block, scale)
        lse = scores.logsumexp(-1)  # [key heads, groups * n]
        weights = (scores - lse[..., None]).exp_().to(value.dtype)
        return _ungroup_heads(weights @ value.transpose(0, 1), query), lse.view(query.shape[1], len(query))

    @staticmethod
    def backward(
        grad_output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        lse: Tensor,
        block: AttentionBlock,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # [key heads, groups * n, w]
        grouped_query, grouped_grad = _group_heads(query, key), _group_heads(grad_output, key)
        scores = _scores(query, key, block, scale)
        weights = (scores - lse.reshape(*scores.shape[:2], 1)).exp_()
        # The softmax's backward pass: dS = P * (dP - rowsum(dO * O)).
        delta = _group_heads((grad_output.float() * output.float()).sum(-1, keepdim=True), key)
        grad_scores = weights * ((grouped_grad @ value.permute(1, 2, 0)).float() - delta)
        grad_scores = (grad_scores * scale).to(query.dtype)
        grad_value = weights.to(value.dtype).transpose(1, 2) @ grouped_grad
        grad_key = grad_scores.transpose(1, 2) @ grouped_query
        grad_query = _ungroup_heads(grad_scores @ key.transpose(0, 1), query)
        return grad_query, grad_key.transpose(0, 1), grad_value.transpose(0, 1)


def _kernel(query: Tensor) -> type[_Flash] | type[_Matmul]:
    return _Matmul if query.dtype in {torch.bfloat16, torch.float16} else _Flash


def _lse_dtype(query: Tensor) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _mask(block: AttentionBlock, query: Tensor) -> Tensor | None:
    return None if block.mask is None else block.mask.to(query.dtype)


def _heads_first(states: Tensor) -> Tensor:  # [n, heads, w] -> [1, heads, n, w]
    return states.transpose(0, 1)[None]


def _scores(query: Tensor, key: Tensor, block: AttentionBlock, scale: float) -> Tensor:
    """Return the scores [key heads, groups * n, m] in fp32, -inf where a key is hidden."""
    scores = (_group_heads(query * scale, key) @ key.permute(1, 2, 0)).float()
    if block.is_causal:
        seen = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        scores.unflatten(1, (-1, len(query))).masked_fill_(~seen, float("-inf"))
    elif block.mask is not None:
        scores.unflatten(1, (-1, len(query))).add_(block.mask)
    return scores


def _group_heads(states: Tensor, key: Tensor) -> Tensor:  # [n, heads, w] -> [key heads, groups * n, w]
    return torch.unflatten(states, 1, (key.shape[1], -1)).permute(1, 2, 0, 3).flatten(1, 2)


def _ungroup_heads(states: Tensor, query: Tensor) -> Tensor:  # [key heads, groups * n, w] -> [n, heads, w]
    return torch.unflatten(states, 1, (-1, len(query))).flatten(0, 1).transpose(0, 1)
