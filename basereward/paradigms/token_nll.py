"""The mean negative log-likelihood of the last tokens of a forest's branches.

Shapes: N branches, D width, T tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest.forest import Forest
from basereward.hardware.transfer import moved


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
    logits = head(hidden.flatten(0, 1).index_select(0, places))  # [T, V]
    cost = functional.cross_entropy(logits, tokens, reduction="none")
    return costs.index_add(0, owner, cost) / lengths.clamp(min=1)
