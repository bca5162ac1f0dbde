"""Varlen attention: blocks of queries and keys, read without padding, with log-sum-exp merge.

A query may have keys in two blocks (cascade attention); the two outputs are merged by their log-sum-exp (as
in arXiv 2205.14135, section 3.1), and the backward pass needs only the merged output and log-sum-exp. The
kernel is an argument: on a CPU it takes one run of queries and of keys at a time, in place, and on a GPU all
of them in one call.

Shapes: Q queries, K keys, n and m those of a block, w width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Rows = slice | Tensor | None
"""Positions among queries or keys: a run, or a list of any; None for all in their order."""


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


class PackedBlock(NamedTuple):
    """Runs of queries, one after the other, and as many runs of keys that they see; none of them is empty.

    Args:
        queries: Positions of the queries, each once; None for all.
        keys: Positions of the keys, likewise.
        query_starts: Where each run of queries begins among these, and where the last one ends.
        key_starts: Likewise of the keys.
        max_queries: The longest run of queries.
        max_keys: The longest run of keys.
        is_causal: Whether a run's last query sees all of its keys, and each one before it one key less.
    """

    queries: Tensor | None  # [n]
    keys: Tensor | None  # [m]
    query_starts: Tensor  # [runs + 1] int32
    key_starts: Tensor  # [runs + 1] int32
    max_queries: int
    max_keys: int
    is_causal: bool = False


Block = TypeVar("Block", AttentionBlock, PackedBlock)


class AttentionBlocks(NamedTuple, Generic[Block]):
    """All visible blocks.

    Args:
        self_blocks: Blocks of a run with itself; each query is in at most one of them.
        prefix_blocks: Blocks of branches with their prefix; each query is in at most one of them, and in a
            self block too.
    """

    self_blocks: Sequence[Block]
    prefix_blocks: Sequence[Block]


class Kernel(Protocol[Block]):
    """Attention within a block, and its backward pass."""

    @staticmethod
    def split(blocks: Sequence[Block]) -> Iterable[Block]:
        """Return blocks as the kernel takes them."""

    @staticmethod
    def forward(
        query: Tensor,  # [n, heads, w]
        key: Tensor,  # [m, key heads, w]
        value: Tensor,  # [m, key heads, w]
        block: Block,
        scale: float,
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        """Return the output and the log-sum-exp of a block."""

    @staticmethod
    def backward(
        grad_output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        lse: Tensor,
        block: Block,
        scale: float,
    ) -> Iterable[Tensor]:
        """Return a block's share of the gradients of its queries, keys and values.

        Output and log-sum-exp are those over all blocks that the queries are in.
        """


def attend(
    query: Tensor,  # [Q, heads, w]
    key: Tensor,  # [K, key heads, w]
    value: Tensor,  # [K, key heads, w]
    blocks: AttentionBlocks[Block],
    *,
    scale: float,
    kernel: Kernel[Block],
) -> Tensor:  # [Q, heads, w]
    """Attend within blocks; queries that are in no block get zeros."""
    output: Tensor = _Attention.apply(query, key, value, blocks, scale, kernel)
    return output


def lse_dtype(query: Tensor) -> torch.dtype:
    """Return the type of a log-sum-exp: fp32, and fp64 for queries in fp64."""
    return torch.float64 if query.dtype == torch.float64 else torch.float32


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: AttentionBlocks[Any],
        scale: float,
        kernel: Kernel[Any],
    ) -> Tensor:
        # A block of all queries brings the whole output.
        num_queries = 0 if any(block.queries is None for block in blocks.self_blocks) else len(query)
        output = query.new_zeros(num_queries, *query.shape[1:])
        lse = query.new_zeros(query.shape[1], num_queries, dtype=lse_dtype(query))  # [heads, Q] log-sum-exp
        for block in kernel.split(blocks.self_blocks):
            part, part_lse = kernel.forward(*_rows_of(block, query, key, value), block, scale)
            if block.queries is None:
                output, lse = part, part_lse
            else:
                output[block.queries], lse[:, block.queries] = part, part_lse
        for block in kernel.split(blocks.prefix_blocks):
            part, part_lse = kernel.forward(*_rows_of(block, query, key, value), block, scale)
            self_lse = _rows(lse, block.queries, 1)
            merged = torch.logaddexp(self_lse, part_lse)
            weight, part_weight = ((one - merged).exp().T[..., None] for one in (self_lse, part_lse))
            mean = _rows(output, block.queries) * weight + part * part_weight
            output[block.queries], lse[:, block.queries] = mean.to(output.dtype), merged
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.blocks, ctx.scale, ctx.kernel = blocks, scale, kernel
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        gradients: list[Tensor | None] = [None, None, None]
        for block in ctx.kernel.split((*ctx.blocks.self_blocks, *ctx.blocks.prefix_blocks)):
            parts = ctx.kernel.backward(
                _rows(grad_output, block.queries),
                *_rows_of(block, query, key, value),
                _rows(output, block.queries),
                _rows(lse, block.queries, 1),
                block,
                ctx.scale,
            )
            for number, (rows, part) in enumerate(
                zip((block.queries, block.keys, block.keys), parts, strict=True)
            ):
                total = gradients[number]
                if total is None and rows is None:
                    gradients[number] = part
                    continue
                if total is None:
                    total = torch.zeros_like(
                        (query, key, value)[number], memory_format=torch.contiguous_format
                    )
                total[rows] += part
                gradients[number] = total
        return (*gradients, None, None, None)


def _rows_of(block: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _rows(query, block.queries), _rows(key, block.keys), _rows(value, block.keys)


def _rows(states: Tensor, rows: Rows, axis: int = 0) -> Tensor:
    if rows is None:
        return states
    if isinstance(rows, slice):
        return states[rows] if axis == 0 else states[:, rows]
    return states.index_select(axis, rows)
