"""The mean negative log-likelihood of the last tokens of a forest's branches.

Shapes: N branches, D width, T tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from basereward.forest.forest import Forest

CHUNK = 1024
"""Tokens whose logits exist at a time: with a vocabulary of 152,000 they take 0.6 GB."""


def mean_nll(
    hidden: Tensor,  # [B, L, D]
    forest: Forest,
    head: nn.Module,
    continuations: Sequence[Sequence[int]],
) -> Tensor:  # [N] fp32
    """Return the mean negative log-likelihood of the last tokens of each branch.

    Args:
        hidden: All states of the forest.
        forest: Where they are.
        head: Makes logits [..., V] of hidden states.
        continuations: The last tokens of each branch, of which there are fewer than its tokens; where there
            are none, the cost is 0.
    """
    lengths = torch.tensor(list(map(len, continuations)), device=hidden.device)  # [N]
    costs = hidden.new_zeros(len(continuations), dtype=torch.float32)
    tokens = torch.tensor([token for ids in continuations for token in ids], device=hidden.device)
    if not len(tokens):
        return costs
    owner = torch.arange(len(continuations), device=hidden.device).repeat_interleave(lengths)  # [T]
    first = lengths.cumsum(0) - lengths
    within = torch.arange(len(tokens), device=hidden.device) - first[owner]
    # A token is foretold where the one before it is read.
    places = forest.ends[owner] - lengths[owner] + within
    states = hidden.flatten(0, 1).index_select(0, places)  # [T, D]
    chunks = zip(states.split(CHUNK), tokens.split(CHUNK), strict=True)
    cost = torch.cat([_checkpointed(head, *chunk) for chunk in chunks])  # [T]
    return costs.index_add(0, owner, cost) / lengths.clamp(min=1)


def _checkpointed(head: nn.Module, states: Tensor, tokens: Tensor) -> Tensor:  # [t, D], [t] -> [t]
    """Return the negative log-likelihood of each token, and keep no logits for the backward pass."""
    if not torch.is_grad_enabled():
        return _nll(head, states, tokens)
    nll: Tensor = checkpoint(_nll, head, states, tokens, use_reentrant=False)
    return nll


def _nll(head: nn.Module, states: Tensor, tokens: Tensor) -> Tensor:  # [t, D], [t] -> [t]
    return functional.cross_entropy(head(states), tokens, reduction="none")
