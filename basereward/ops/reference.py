"""The ops in plain torch: what the compiled kernels must equal, and what runs where there are none.

Written for fp64 as well as fp32, and differentiable as often as one likes. Shapes: B rows, L tokens a row, N
responses, P pairs, D width of the hidden states, H of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional


def batched_bt_loss(
    rewards: Tensor,  # [N] fp32 or fp64
    pairs: Tensor,  # [P, 2] int64: chosen, rejected
    tie: Tensor | None,  # [P] bool
    margin: Tensor | None,  # [P]
    weight: Tensor | None,  # [P]
    lengths: Tensor | None,  # [N] int64
    label_smoothing: float,
    zero_coefficient: float,
    tie_weight: float,
) -> tuple[Tensor, Tensor]:  # loss [], statistics [9] fp64
    """Return the Bradley-Terry loss, differentiable in the rewards alone; see
    `basereward.ops.batched_bt_loss`."""
    chosen, rejected = pairs.unbind(1)  # [P], [P]
    if tie is None:
        tie = torch.zeros_like(chosen, dtype=torch.bool)
    weight = rewards.new_ones(pairs.shape[0]) if weight is None else weight.detach()
    weight = torch.where(tie, weight * tie_weight, weight)

    used = rewards if lengths is None else rewards / torch.log(lengths.to(rewards.dtype) + 1)
    first, second = used[chosen], used[rejected]  # [P], [P]
    difference = first - second
    if margin is not None:
        difference = difference - torch.where(tie, 0.0, margin.detach())
    smoothing = torch.where(tie, 0.5, torch.full_like(weight, label_smoothing))
    # -logsigmoid(m) is softplus(-m), and softplus(-m) + e m is (1 - e) softplus(-m) + e softplus(m).
    terms = smoothing * difference - functional.logsigmoid(difference)
    terms = terms + zero_coefficient * (first + second).square()
    total = weight.sum()
    # All weights zero is a loss of zero, not 0 / 0.
    loss = (weight * terms).sum() / torch.where(total > 0, total, 1.0)
    return loss, pair_statistics(rewards, pairs, tie, total)


@torch.no_grad()
def pair_statistics(
    rewards: Tensor,  # [N]
    pairs: Tensor,  # [P, 2] int64: chosen, rejected
    tie: Tensor,  # [P] bool
    weight: Tensor,  # [] the denominator of a loss
) -> Tensor:  # [9] fp64
    """Return the sums that metrics are made of, in the order of `basereward.ops.STATISTICS`."""
    rewards = rewards.double()
    counts = (~tie).double()  # [P]
    first, second = rewards[pairs].unbind(1)  # [P], [P]
    margin = first - second
    is_rated = ~rewards.isnan()
    # The padding gives an empty batch a minimum and a maximum.
    low = functional.pad(torch.where(is_rated, rewards, torch.inf), (0, 1), value=torch.inf)
    high = functional.pad(torch.where(is_rated, rewards, -torch.inf), (0, 1), value=-torch.inf)
    sums = [
        weight.double(),
        (counts * ((first > second).double() + (first == second).double() / 2)).sum(),
        (counts * margin).sum(),
        (counts * margin.square()).sum(),
        (counts * first).sum(),
        (counts * second).sum(),
        low.min(),
        high.max(),
        counts.sum(),
    ]
    return torch.stack(sums)


def pairwise_reward_head(
    hidden: Tensor,  # [B, L, D] or [T, D]
    ends: Tensor | None,  # [N] int64
    norm: Tensor | None,  # [D]
    norm_eps: float,
    w1: Tensor | None,  # [H, D]
    b1: Tensor | None,  # [H]
    w2: Tensor,  # [1, H] or [H]
    b2: Tensor | None,  # one number
    activation: str,
) -> Tensor:  # [N] fp32 or fp64
    """Return the rewards of a head at some rows; see `basereward.ops.pairwise_reward_head`."""
    rows = hidden.flatten(0, -2)  # [T, D]
    rows = (rows if ends is None else rows.index_select(0, ends)).to(w2.dtype)
    wide = torch.float64 if w2.dtype == torch.float64 else torch.float32
    if norm is not None:
        x = rows.to(wide)
        rows = (x * (x.square().mean(1, keepdim=True) + norm_eps).rsqrt() * norm.to(wide)).to(w2.dtype)
    inner = (rows if w1 is None else rows @ w1.t()).to(wide)  # [N, H]
    if b1 is not None:
        inner = inner + b1.to(wide)
    rewards = (ACTIVATIONS[activation](inner) * w2.reshape(-1).to(wide)).sum(1)
    return rewards if b2 is None else rewards + b2.reshape(()).to(wide)


ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "none": lambda inner: inner,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "relu": torch.relu,
}
