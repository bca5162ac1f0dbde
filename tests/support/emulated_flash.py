"""FlashAttention's varlen kernel in plain torch, with the contract that the real one has on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from basereward.forest.varlen_attention import PackedBlock, lse_dtype


class EmulatedFlash:
    """A loop over runs: output [n, heads, w], log-sum-exp [heads, n], each key head serves a group of heads.

    Stricter than the real one where it would read what isn't there, or where its result isn't documented: no
    run may be empty, and the runs are all that is handed over.
    """

    @staticmethod
    def split(blocks: Sequence[PackedBlock]) -> Sequence[PackedBlock]:
        return blocks

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: PackedBlock, scale: float
    ) -> tuple[Tensor, Tensor]:
        # Of half precision, scores and log-sum-exp are in fp32, whatever autocast says.
        dtype, (query, key, value) = query.dtype, raised(query, key, value)
        output, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        for queries, keys in runs(query, key, value, block):
            scores = scores_of(query[queries], key[keys], block, scale)
            lse[:, queries] = scores.logsumexp(-1)
            weights = (scores - lse[:, queries, None]).exp()
            output[queries] = torch.einsum("hqk,khd->qhd", weights, grouped(value[keys], query))
        return output.to(dtype), lse

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(
        grad_output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        lse: Tensor,
        block: PackedBlock,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = query.dtype
        grad_output, query, key, value, output = raised(grad_output, query, key, value, output)
        grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
        for queries, keys in runs(query, key, value, block):
            # As the real kernel: weights from the log-sum-exp that is given, not from a sum over these keys.
            weights = (scores_of(query[queries], key[keys], block, scale) - lse[:, queries, None]).exp()
            delta = (grad_output[queries] * output[queries]).sum(-1).T[..., None]
            grad_weights = torch.einsum("qhd,khd->hqk", grad_output[queries], grouped(value[keys], query))
            grad_scores = weights * (grad_weights - delta) * scale
            grad_query[queries] = torch.einsum("hqk,khd->qhd", grad_scores, grouped(key[keys], query))
            for gradient, one, other in (
                (grad_key, grad_scores, query),
                (grad_value, weights, grad_output),
            ):
                by_head = torch.einsum("hqk,qhd->khd", one, other[queries])
                gradient[keys] = by_head.unflatten(1, (key.shape[1], -1)).sum(2)
        return grad_query.to(dtype), grad_key.to(dtype), grad_value.to(dtype)


def raised(*states: Tensor) -> list[Tensor]:
    """Return states in the type that a log-sum-exp has."""
    return [state.to(lse_dtype(state)) for state in states]


def runs(query: Tensor, key: Tensor, value: Tensor, block: PackedBlock) -> Iterator[tuple[slice, slice]]:
    """Return each run of queries with its run of keys, once what is handed over keeps the contract."""
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert block.query_starts.dtype == block.key_starts.dtype == torch.int32
    queries, keys = block.query_starts.tolist(), block.key_starts.tolist()
    assert len(queries) == len(keys) > 1
    assert (queries[0], keys[0], queries[-1], keys[-1]) == (0, 0, len(query), len(key))
    lengths = [[stop - start for start, stop in pairwise(at)] for at in (queries, keys)]
    assert min(map(min, lengths)) > 0
    assert (max(lengths[0]), max(lengths[1])) == (block.max_queries, block.max_keys)
    for pair, key_pair in zip(pairwise(queries), pairwise(keys), strict=True):
        yield slice(*pair), slice(*key_pair)


def scores_of(query: Tensor, key: Tensor, block: PackedBlock, scale: float) -> Tensor:  # [heads, n, m]
    """Return the scores of a run; where it is causal, the last query sees all keys."""
    scores = torch.einsum("qhd,khd->hqk", query, grouped(key, query)) * scale
    if block.is_causal:
        seen = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        scores = scores.masked_fill(~seen, -math.inf)
    return scores


def grouped(states: Tensor, query: Tensor) -> Tensor:
    """Return keys or values repeated for each head of the queries."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], 1)
