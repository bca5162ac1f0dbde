"""The reward head and the Bradley-Terry loss of its rewards in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from basereward.ops._loader import library
from basereward.ops._registration import PairwiseRewardLoss
from basereward.ops.head import Activation, pairwise_reward_head
from basereward.ops.loss import TIE_WEIGHTS, Ties, batched_bt_loss, check_options


def pairwise_reward_loss(
    hidden: Tensor,  # [B, L, D] with any strides, or [T, D]
    ends: Tensor | None,  # [N] int64 places in the B * L or T rows; None: every row
    w1: Tensor | None,  # [H, D]; None: the head is linear, H = D
    b1: Tensor | None,  # [H]
    w2: Tensor,  # [1, H] or [H]
    b2: Tensor | None,  # one number
    pairs: Tensor,  # [P, 2] integers: chosen, rejected
    *,
    activation: Activation = "silu",
    norm: Tensor | None = None,  # [D]
    norm_eps: float = 1e-6,
    tie: Tensor | None = None,  # [P] bool
    margin: Tensor | None = None,  # [P]
    weight: Tensor | None = None,  # [P]
    lengths: Tensor | None = None,  # [N] integers, tokens
    label_smoothing: float = 0.0,
    zero_coefficient: float = 0.0,
    ties: Ties = "ignore",
) -> tuple[Tensor, Tensor, Tensor]:  # loss [], statistics [9] fp64, rewards [N]
    """Return `batched_bt_loss` of the rewards of `pairwise_reward_head`, whose arguments these are.

    The kernels are those of the two ops, and so are the numbers, bit for bit; between them there is no step
    of autograd, and none of Python. Where nothing is compiled, or torch traces the call, the two ops are
    called.

    Returns:
        The loss, differentiable once in all tensors of the head but `ends`; the statistics; and the rewards,
        detached.

    Raises:
        TypeError: For a dtype that an op does not take.
        ValueError: For a shape, a device or a value that an op refuses.
        ConfigError: When BASEREWARD_KERNELS asks for kernels that aren't there.
    """
    check_options(label_smoothing, zero_coefficient, ties)
    is_plain = type(hidden) is Tensor and norm_eps >= 0 and not torch.compiler.is_compiling()
    if is_plain and library.compiled(hidden.device.type):
        loss_options = (label_smoothing, zero_coefficient, TIE_WEIGHTS[ties])
        remaining = (ends, norm_eps, activation, pairs, tie, margin, weight, lengths, *loss_options)
        call: Any = PairwiseRewardLoss.apply
        try:
            loss, statistics, rewards = call(hidden, norm, w1, b1, w2, b2, remaining)
        except RuntimeError:
            pass  # The two ops convert what can be converted, and name what is wrong.
        else:
            if loss.device == hidden.device:
                return loss, statistics, rewards
    rewards = pairwise_reward_head(
        hidden, ends, w1, b1, w2, b2, activation=activation, norm=norm, norm_eps=norm_eps
    )
    loss, statistics = batched_bt_loss(
        rewards,
        pairs,
        tie=tie,
        margin=margin,
        weight=weight,
        lengths=lengths,
        label_smoothing=label_smoothing,
        zero_coefficient=zero_coefficient,
        ties=ties,
    )
    return loss, statistics, rewards.detach()
