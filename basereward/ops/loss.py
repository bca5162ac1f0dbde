"""The Bradley-Terry loss of a batch of pairs."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor

from basereward.ops import reference
from basereward.ops._loader import library
from basereward.ops._registration import BatchedBTLoss, once

STATISTICS: Final = (
    "weight",
    "correct",
    "margin",
    "margin_squared",
    "chosen",
    "rejected",
    "min",
    "max",
    "pairs",
)
"""The entries of a statistics vector. `weight` is the loss's denominator, `pairs` counts pairs that
are no ties, and `correct` (equal rewards count half), `margin`, `margin_squared`, `chosen` and `rejected` are
sums over those, of the rewards as given; `min` and `max` are over all rewards that are numbers, inf and -inf
where there are none."""

Ties = Literal["ignore", "half"]
TIE_WEIGHTS: Final[dict[str, float]] = {"ignore": 0.0, "half": 1.0}


def batched_bt_loss(
    rewards: Tensor,  # [N] floating
    pairs: Tensor,  # [P, 2] integers: chosen, rejected
    *,
    tie: Tensor | None = None,  # [P] bool
    margin: Tensor | None = None,  # [P]
    weight: Tensor | None = None,  # [P]
    lengths: Tensor | None = None,  # [N] integers, tokens
    label_smoothing: float = 0.0,
    zero_coefficient: float = 0.0,
    ties: Ties = "ignore",
) -> tuple[Tensor, Tensor]:  # loss [], statistics [9] fp64
    """Return the weighted mean Bradley-Terry loss of pairs, and the sums that metrics are made of.

    With e the label smoothing and z the zero-coefficient, a pair of chosen c and rejected r costs

        m = s_c - s_r - margin,   (1 - e) softplus(-m) + e softplus(m) + z (s_c + s_r)^2

    where s is the reward, or reward / log(length + 1) if `lengths` are given (arXiv 2509.16127, section 4.3:
    the normalized rewards go into both terms). It is computed in fp32, or in fp64 for fp64 rewards. The sum
    of the weights is the denominator; where all are zero the loss is zero. A NaN reward makes the loss NaN.

    Args:
        rewards: One reward a response.
        pairs: For each pair, the places of the chosen and the rejected response in `rewards`.
        tie: Pairs whose responses are equally good.
        margin: By how much a pair's rewards should differ; a tie's is not used.
        weight: How much a pair counts, >= 0.
        lengths: Tokens of each response, >= 1.
        label_smoothing: Probability that a label is the wrong way round, in [0, 0.5].
        zero_coefficient: Pulls the sum of a pair's rewards to zero, >= 0.
        ties: "ignore" gives ties no weight; "half" takes either response as chosen with probability 1/2.

    Returns:
        The loss, differentiable once with respect to `rewards`, and the statistics in the order of
        `STATISTICS`.

    Raises:
        TypeError: For a dtype that isn't one of those above.
        ValueError: For a shape, a device or a value that isn't.
        ConfigError: When BASEREWARD_KERNELS asks for kernels that aren't there.
    """
    check_options(label_smoothing, zero_coefficient, ties)
    options = (label_smoothing, zero_coefficient, TIE_WEIGHTS[ties])
    tracing = torch.compiler.is_compiling()
    if not tracing and type(rewards) is Tensor and rewards.is_cpu and library.compiled("cpu"):
        # The checks below cost more than the kernel at a few pairs, and it makes them too, in fewer words.
        try:
            return _directly(rewards, pairs, tie, margin, weight, lengths, *options)
        except RuntimeError:
            pass
    _check(rewards, pairs, tie, margin, weight, lengths)
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    tensors = (
        rewards.to(dtype),
        pairs.to(torch.int64),
        tie,
        None if margin is None else margin.to(dtype),
        None if weight is None else weight.to(dtype),
        None if lengths is None else lengths.to(torch.int64),
    )
    readable = rewards.device.type == "cpu" and not tracing
    if library.compiled(rewards.device.type):
        call: Any = torch.ops.basereward.batched_bt_loss if tracing else BatchedBTLoss.apply
        try:
            loss, _, statistics = call(*tensors, *options)
        except RuntimeError:
            # The kernel has met a value that it refuses; looking for one beforehand would cost every call.
            if readable:
                _check_values(*tensors)
            raise
        return loss, statistics
    if readable:
        _check_values(*tensors)
    return reference.batched_bt_loss(*tensors, *options)


def check_options(label_smoothing: float, zero_coefficient: float, ties: str) -> None:
    """Refuse numbers outside their range, and an unknown way to take ties."""
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing is a probability from 0 to 0.5, not {label_smoothing}")
    if not 0 <= zero_coefficient < float("inf"):
        raise ValueError(f"zero_coefficient is a finite number >= 0, not {zero_coefficient}")
    if ties not in TIE_WEIGHTS:
        raise ValueError(f"ties is 'ignore' or 'half', not {ties!r}")


def _directly(rewards: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Return loss and statistics of the CPU's kernel, tied to the rewards by torch's own node.

    Raises:
        RuntimeError: For arguments that are not as the kernel takes them.
    """
    differentiable = rewards.requires_grad and torch.is_grad_enabled()
    loss, statistics = torch.ops.basereward.bt_loss_on_cpu.default(rewards, *rest, differentiable)
    if not differentiable:
        return loss, statistics

    def refuse(grads: tuple[Tensor]) -> tuple[Tensor] | None:
        return (once(grads[0], "batched_bt_loss", rewards),) if torch.is_grad_enabled() else None

    # Or torch's node would take the gradient for a constant where it is differentiated again. A hook of the
    # node takes half the time of one of the tensor.
    node: Any = loss.grad_fn
    node.register_prehook(refuse)
    return loss, statistics


def _check(
    rewards: Tensor,
    pairs: Tensor,
    tie: Tensor | None,
    margin: Tensor | None,
    weight: Tensor | None,
    lengths: Tensor | None,
) -> None:
    """Refuse dtypes, shapes and devices that don't fit, without reading values."""
    if not rewards.is_floating_point():
        raise TypeError(f"rewards has dtype {rewards.dtype}; a floating dtype is needed")
    if rewards.dim() != 1:
        raise ValueError(f"rewards has shape {list(rewards.shape)}; one reward a response, [N], is needed")
    if pairs.is_floating_point() or pairs.dtype == torch.bool:
        raise TypeError(f"pairs has dtype {pairs.dtype}; places in rewards, int64, are needed")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs has shape {list(pairs.shape)}; [P, 2], chosen and rejected, is needed")
    if tie is not None and tie.dtype != torch.bool:
        raise TypeError(f"tie has dtype {tie.dtype}; bool is needed")
    if lengths is not None and (lengths.is_floating_point() or lengths.dtype == torch.bool):
        raise TypeError(f"lengths has dtype {lengths.dtype}; numbers of tokens, int64, are needed")
    per_pair = [("tie", tie, pairs), ("margin", margin, pairs), ("weight", weight, pairs)]
    for name, tensor, like in [*per_pair, ("lengths", lengths, rewards)]:
        if tensor is not None and (tensor.dim() != 1 or tensor.shape[0] != like.shape[0]):
            unit = "pairs" if like is pairs else "rewards"
            given = f"{name} has shape {list(tensor.shape)} for {like.shape[0]} {unit}"
            raise ValueError(f"{given}; one value each is needed")
    for name, tensor, _ in [("pairs", pairs, pairs), *per_pair, ("lengths", lengths, rewards)]:
        if tensor is not None and tensor.device != rewards.device:
            raise ValueError(f"{name} is on {tensor.device}, but rewards on {rewards.device}")


def _check_values(
    rewards: Tensor,
    pairs: Tensor,
    tie: Tensor | None,
    margin: Tensor | None,
    weight: Tensor | None,
    lengths: Tensor | None,
) -> None:
    """Refuse values outside their range, naming the first."""
    outside = pairs[(pairs < 0) | (pairs >= len(rewards))]
    if len(outside):
        raise ValueError(f"pairs holds {outside[0].item()}, which is no place in {len(rewards)} rewards")
    if margin is not None and len(bad := margin[~margin.isfinite()]):
        raise ValueError(f"margin holds {bad[0].item()}; finite numbers are needed")
    if weight is not None and len(bad := weight[~(weight.isfinite() & (weight >= 0))]):
        raise ValueError(f"weight holds {bad[0].item()}; finite numbers >= 0 are needed")
    if lengths is not None and len(bad := lengths[lengths < 1]):
        raise ValueError(f"lengths holds {bad[0].item()}; numbers of tokens >= 1 are needed")
