"""The kernels that attend within one block of queries and keys: torch's own for CPUs, and matrix products.

Shapes: n queries of a block, m keys, w width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from basereward.forest.varlen_attention import AttentionBlock, Kernel, lse_dtype

QUERY_CHUNK = 256
"""Queries whose weights are held in memory at a time where matrix products compute them."""


def block_kernel(query: Tensor) -> Kernel[AttentionBlock]:
    """Return the kernel that computes blocks of these queries one by one."""
    return CpuFlash if query.device.type == "cpu" else Matmul


class CpuFlash:
    """torch's own kernel for CPUs, which stores no attention weights.

    Half precision is computed in fp32. On a processor with AMX that takes 0.4 to 0.8 of the time of matrix
    products in bf16, for heads of 64 values and up to 12,000 tokens; the kernel's own bf16 takes longer than
    those in the backward pass.
    """

    @staticmethod
    def split(blocks: Sequence[AttentionBlock]) -> Sequence[AttentionBlock]:
        """Return blocks as the kernel takes them."""
        return blocks

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        """Return the output and the log-sum-exp of a block."""
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *map(_heads_first, (query, key, value)),
            0.0,
            block.is_causal,
            attn_mask=_mask(block, query),
            scale=scale,
        )
        return output[0].transpose(0, 1).to(query.dtype), lse[0]

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
        """Return a block's share of the gradients; see `Kernel`."""
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *map(_heads_first, (grad_output, query, key, value, output)),
            lse[None],
            0.0,
            block.is_causal,
            attn_mask=_mask(block, query),
            scale=scale,
        )
        return (gradient[0].transpose(0, 1).to(query.dtype) for gradient in gradients)


class Matmul:
    """Matrix products, for devices without a kernel of their own, whose blocks have no masks."""

    @staticmethod
    def split(blocks: Sequence[AttentionBlock]) -> Iterator[AttentionBlock]:
        """Return blocks as the kernel takes them."""
        for queries, keys, is_causal, _ in blocks:
            num_hidden = keys.stop - keys.start - (queries.stop - queries.start)
            for start in range(queries.start, queries.stop, QUERY_CHUNK):
                stop = min(start + QUERY_CHUNK, queries.stop)
                last_key = keys.start + num_hidden + stop - queries.start if is_causal else keys.stop
                yield AttentionBlock(slice(start, stop), slice(keys.start, last_key), is_causal)

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        """Return the output and the log-sum-exp of a block."""
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
        """Return a block's share of the gradients; see `Kernel`."""
        # [key heads, groups * n, w]
        grouped_query, grouped_grad = _group_heads(query, key), _group_heads(grad_output, key)
        scores = _scores(query, key, block, scale)
        weights = (scores - lse.reshape(*scores.shape[:2], 1)).exp_()
        # The softmax's backward pass: dS = P * (dP - rowsum(dO * O)).
        dtype = scores.dtype
        delta = _group_heads((grad_output.to(dtype) * output.to(dtype)).sum(-1, keepdim=True), key)
        grad_scores = weights * ((grouped_grad @ value.permute(1, 2, 0)).to(dtype) - delta)
        grad_scores = (grad_scores * scale).to(query.dtype)
        grad_value = weights.to(value.dtype).transpose(1, 2) @ grouped_grad
        grad_key = grad_scores.transpose(1, 2) @ grouped_query
        grad_query = _ungroup_heads(grad_scores @ key.transpose(0, 1), query)
        return grad_query, grad_key.transpose(0, 1), grad_value.transpose(0, 1)


def _mask(block: AttentionBlock, query: Tensor) -> Tensor | None:
    return None if block.mask is None else block.mask.to(lse_dtype(query))


def _heads_first(states: Tensor) -> Tensor:  # [n, heads, w] -> [1, heads, n, w] in fp32 or fp64
    return states.to(lse_dtype(states)).transpose(0, 1)[None]


def _scores(query: Tensor, key: Tensor, block: AttentionBlock, scale: float) -> Tensor:
    """Return the scores [key heads, groups * n, m] as a log-sum-exp is, -inf where a key is hidden."""
    scores = (_group_heads(query * scale, key) @ key.permute(1, 2, 0)).to(lse_dtype(query))
    if block.is_causal:
        seen = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device)
        seen = seen.tril(len(key) - len(query))
        scores.unflatten(1, (-1, len(query))).masked_fill_(~seen, float("-inf"))
    return scores


def _group_heads(states: Tensor, key: Tensor) -> Tensor:  # [n, heads, w] -> [key heads, groups * n, w]
    return torch.unflatten(states, 1, (key.shape[1], -1)).permute(1, 2, 0, 3).flatten(1, 2)


def _ungroup_heads(states: Tensor, query: Tensor) -> Tensor:  # [key heads, groups * n, w] -> [n, heads, w]
    return torch.unflatten(states, 1, (-1, len(query))).flatten(0, 1).transpose(0, 1)
