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
from basereward.hardware.transfer import moved

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
    # Made on the CPU, which knows how many there are of each; the device needn't tell.
    lengths = torch.tensor(list(map(len, continuations)), dtype=torch.long)  # [N]
    tokens = torch.tensor([token for ids in continuations for token in ids], dtype=torch.long)
    costs = hidden.new_zeros(len(continuations), dtype=torch.float32)
    if not len(tokens):
        return costs
    owner = torch.arange(len(continuations)).repeat_interleave(lengths)  # [T]
    # A token is foretold where the one before it is read: the last one token before the end.
    back = lengths.cumsum(0)[owner] - torch.arange(len(tokens))
    owner, back, tokens, lengths = (moved(one, hidden.device) for one in (owner, back, tokens, lengths))
    places = forest.ends[owner] - back
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
