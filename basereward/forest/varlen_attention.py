"""Attention in pieces: each a run of queries and a run of keys, read where they lie, not copied or padded.

For CPUs, where copying keys costs about as much as reading them. A query may have keys in two pieces; what it
found in each is joined by the logarithms of the sums of its weights (as in arXiv 2205.14135, section 3.1),
and the backward pass needs no more than those of both pieces together.

Shapes: Q queries, K keys, n and m those of a piece, w width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 256
"""Queries whose weights are held at a time where plain products compute them."""


class Piece(NamedTuple):
    """Queries and the keys that they see.

    Args:
        queries: Places of the queries.
        keys: Places of the keys.
        is_causal: Whether the last query sees all keys, and each one before it one key less.
    """

    queries: slice
    keys: slice
    is_causal: bool = False


class Pieces(NamedTuple):
    """All that is seen.

    Args:
        own: Every query is in one of these.
        shared: Further keys of some of the queries, each of which is in one of these at most.
    """

    own: Sequence[Piece]
    shared: Sequence[Piece]


def attend(
    query: Tensor,  # [Q, heads, w]
    key: Tensor,  # [K, key heads, w]
    value: Tensor,  # [K, key heads, w]
    pieces: Pieces,
    *,
    scale: float,
) -> Tensor:  # [Q, heads, w]
    """Attend; queries that are in no piece get zeros."""
    result: Tensor = _Attention.apply(query, key, value, pieces, scale)
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scale: float) -> Tensor:
        kernel = _kernel(query)
        found = torch.zeros_like(query, memory_format=torch.contiguous_format)
        sums = query.new_zeros(query.shape[1], len(query), dtype=_precise(query))  # [heads, Q], of logarithms
        for piece in kernel.split(pieces.own):
            part, part_sums = kernel.forward(
                query[piece.queries], key[piece.keys], value[piece.keys], piece, scale
            )
            found[piece.queries], sums[:, piece.queries] = part, part_sums
        for piece in kernel.split(pieces.shared):
            part, part_sums = kernel.forward(
                query[piece.queries], key[piece.keys], value[piece.keys], piece, scale
            )
            before = sums[:, piece.queries]
            joined = torch.logaddexp(before, part_sums)
            found[piece.queries] *= (before - joined).exp().T[..., None]
            found[piece.queries] += part * (part_sums - joined).exp().T[..., None]
            sums[:, piece.queries] = joined
        ctx.save_for_backward(query, key, value, found, sums)
        ctx.pieces, ctx.scale = pieces, scale
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, found, sums = ctx.saved_tensors
        kernel = _kernel(query)
        gradients = [
            torch.zeros_like(state, memory_format=torch.contiguous_format) for state in (query, key, value)
        ]
        for piece in kernel.split((*ctx.pieces.own, *ctx.pieces.shared)):
            queries, keys = piece.queries, piece.keys
            parts = kernel.backward(
                gradient[queries],
                query[queries],
                key[keys],
                value[keys],
                found[queries],
                sums[:, queries],
                piece,
                ctx.scale,
            )
            for total, place, part in zip(gradients, (queries, keys, keys), parts, strict=True):
                total[place] += part
        return (*gradients, None, None)


class _Flash:
    """torch's own kernel for CPUs, which keeps no weights."""

    @staticmethod
    def split(pieces: Sequence[Piece]) -> Sequence[Piece]:
        return pieces

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, piece: Piece, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        part, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *map(_headed, (query, key, value)), 0.0, piece.is_causal, scale=scale
        )
        return part[0].transpose(0, 1), sums[0]

    @staticmethod
    def backward(
        gradient: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        found: Tensor,
        sums: Tensor,
        piece: Piece,
        scale: float,
    ) -> Iterator[Tensor]:
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *map(_headed, (gradient, query, key, value, found)),
            sums[None],
            0.0,
            piece.is_causal,
            scale=scale,
        )
        return (part[0].transpose(0, 1) for part in parts)


class _Plain:
    """Matrix products, which in bf16 are 3 to 10 times as fast as torch's kernel in the backward pass."""

    @staticmethod
    def split(pieces: Sequence[Piece]) -> Iterator[Piece]:
        for queries, keys, is_causal in pieces:
            num_hidden = keys.stop - keys.start - (queries.stop - queries.start)
            for start in range(queries.start, queries.stop, BLOCK):
                stop = min(start + BLOCK, queries.stop)
                seen = keys.start + num_hidden + stop - queries.start if is_causal else keys.stop
                yield Piece(slice(start, stop), slice(keys.start, seen), is_causal)

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, piece: Piece, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n]
        scores = _scores(query, key, piece, scale)
        sums = scores.logsumexp(-1)  # [key heads, groups * n]
        weights = (scores - sums[..., None]).exp_().to(value.dtype)
        return _ungrouped(weights @ value.transpose(0, 1), query), sums.view(query.shape[1], len(query))

    @staticmethod
    def backward(
        gradient: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        found: Tensor,
        sums: Tensor,
        piece: Piece,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grouped, above = _grouped(query, key), _grouped(gradient, key)  # [key heads, groups * n, w]
        scores = _scores(query, key, piece, scale)
        weights = (scores - sums.reshape(*scores.shape[:2], 1)).exp_()
        share = _grouped((gradient.float() * found.float()).sum(-1, keepdim=True), key)
        of_scores = weights * ((above @ value.permute(1, 2, 0)).float() - share)
        of_scores = (of_scores * scale).to(query.dtype)
        of_values = weights.to(value.dtype).transpose(1, 2) @ above
        of_keys = of_scores.transpose(1, 2) @ grouped
        of_queries = _ungrouped(of_scores @ key.transpose(0, 1), query)
        return of_queries, of_keys.transpose(0, 1), of_values.transpose(0, 1)


def _kernel(query: Tensor) -> type[_Flash] | type[_Plain]:
    return _Plain if query.dtype in {torch.bfloat16, torch.float16} else _Flash


def _precise(query: Tensor) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _headed(states: Tensor) -> Tensor:  # [n, heads, w] -> [1, heads, n, w]
    return states.transpose(0, 1)[None]


def _scores(query: Tensor, key: Tensor, piece: Piece, scale: float) -> Tensor:
    """Return the scores [key heads, groups * n, m] in fp32, -inf where nothing is seen."""
    scores = (_grouped(query * scale, key) @ key.permute(1, 2, 0)).float()
    if piece.is_causal:
        seen = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        scores.unflatten(1, (-1, len(query))).masked_fill_(~seen, float("-inf"))
    return scores


def _grouped(states: Tensor, key: Tensor) -> Tensor:  # [n, heads, w] -> [key heads, groups * n, w]
    return states.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3).flatten(1, 2)


def _ungrouped(states: Tensor, query: Tensor) -> Tensor:  # [key heads, groups * n, w] -> [n, heads, w]
    return states.unflatten(1, (-1, len(query))).flatten(0, 1).transpose(0, 1)
