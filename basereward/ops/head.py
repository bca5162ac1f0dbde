"""The reward head on the responses' last hidden states."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from basereward.ops import reference
from basereward.ops._loader import library
from basereward.ops._registration import PairwiseRewardHead

Activation = Literal["none", "tanh", "silu", "relu"]
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)
DTYPES: Final = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def pairwise_reward_head(
    hidden: Tensor,  # [B, L, D] with any strides, or [T, D]
    ends: Tensor | None,  # [N] int64 places in the B * L or T rows; None: every row
    w1: Tensor | None,  # [H, D]; None: the head is linear, H = D
    b1: Tensor | None,  # [H]
    w2: Tensor,  # [1, H] or [H]
    b2: Tensor | None = None,  # one number
    *,
    activation: Activation = "silu",
    norm: Tensor | None = None,  # [D]
    norm_eps: float = 1e-6,
) -> Tensor:  # [N]
    """Return the rewards of a head of one or two layers, read at some rows of the hidden states.

        reward_n = b2 + w2 . act(w1 x_n + b1),  x_n = hidden[ends_n]

    With `norm` the rows go through a model's final RMSNorm first, which then need not run over all tokens:
    x_n = norm * hidden[ends_n] / sqrt(mean(hidden[ends_n]^2) + norm_eps).

    The rows are picked first and converted to the dtype of the weights, in which the matrix product is taken;
    bias, activation and dot product are fp32 (fp64 for fp64 weights). Autocast has no say: a head in bf16
    gives equal rewards to responses that are not equal.

    Args:
        hidden: Hidden states, of which only the rows in `ends` are read.
        ends: The row of each response's last token, each at most once.
        w1: Weights of the first layer, as `nn.Linear` holds them.
        b1: Its bias.
        w2: Weights of the last layer.
        b2: Its bias.
        activation: What stands between the layers.
        norm: Weight of the RMSNorm; None: the rows are taken as they are.
        norm_eps: What it adds to the mean square.

    Returns:
        Rewards in fp32, or fp64 for fp64 weights; differentiable once in all tensors but `ends`.

    Raises:
        TypeError: For a dtype that isn't one of fp64, fp32, bf16 and fp16, or weights of several dtypes.
        ValueError: For a shape, a device or an index that doesn't fit.
        ConfigError: When BASEREWARD_KERNELS asks for kernels that aren't there.
    """
    _check(hidden, ends, norm, w1, b1, w2, b2)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; allowed: {', '.join(ACTIVATIONS)}")
    if not 0 <= norm_eps < math.inf:
        raise ValueError(f"norm_eps is {norm_eps}; a finite number >= 0 is needed")
    arguments = (hidden, ends, norm, norm_eps, w1, b1, w2, b2, activation)
    tracing = torch.compiler.is_compiling()
    readable = hidden.device.type == "cpu" and not tracing
    if library.compiled(hidden.device.type):
        call: Any = torch.ops.basereward.pairwise_reward_head if tracing else PairwiseRewardHead.apply
        try:
            rewards: Tensor = call(*arguments)[0]
        except RuntimeError:
            # The kernel has met an index that it refuses; looking for one beforehand would cost every call.
            if readable:
                _check_values(hidden, ends)
            raise
        return rewards
    if readable:
        _check_values(hidden, ends)
    with torch.autocast(hidden.device.type, enabled=False):
        return reference.pairwise_reward_head(*arguments)


def _check(
    hidden: Tensor,
    ends: Tensor | None,
    norm: Tensor | None,
    w1: Tensor | None,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
) -> None:
    """Refuse dtypes, shapes and devices that don't fit, without reading values."""
    tensors = {"hidden": hidden, "w2": w2, "norm": norm, "w1": w1, "b1": b1, "b2": b2}
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in DTYPES:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; float64, float32, bfloat16 or float16 is needed"
            )
        if tensor is not None and name not in ("hidden", "w2") and tensor.dtype != w2.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype}, but w2 {w2.dtype}; a head has one dtype")
    if ends is not None and ends.dtype != torch.int64:
        raise TypeError(f"ends has dtype {ends.dtype}; rows of hidden, int64, are needed")
    if hidden.dim() not in (2, 3):
        raise ValueError(f"hidden has shape {list(hidden.shape)}; [B, L, D] or [T, D] is needed")
    if ends is not None and ends.dim() != 1:
        raise ValueError(f"ends has shape {list(ends.shape)}; one row a response, [N], is needed")
    width = hidden.shape[-1]
    if norm is not None and norm.shape != (width,):
        raise ValueError(f"norm has shape {list(norm.shape)}; [{width}] is needed")
    if w1 is not None and (w1.dim() != 2 or w1.shape[1] != width):
        raise ValueError(
            f"w1 has shape {list(w1.shape)}; [H, {width}] is needed for hidden states of width {width}"
        )
    num_columns = width if w1 is None else w1.shape[0]
    if b1 is not None and b1.shape != (num_columns,):
        raise ValueError(f"b1 has shape {list(b1.shape)}; [{num_columns}] is needed")
    if w2.shape != (num_columns,) and w2.shape != (1, num_columns):
        raise ValueError(f"w2 has shape {list(w2.shape)}; [1, {num_columns}] or [{num_columns}] is needed")
    if b2 is not None and (b2.dim() > 1 or b2.numel() != 1):
        raise ValueError(f"b2 has shape {list(b2.shape)}; one number is needed")
    for name, tensor in {**tensors, "ends": ends}.items():
        if tensor is not None and tensor.device != hidden.device:
            raise ValueError(f"{name} is on {tensor.device}, but hidden on {hidden.device}")


def _check_values(hidden: Tensor, ends: Tensor | None) -> None:
    """Refuse indices outside the hidden states and repeated ones, naming the first."""
    if ends is None:
        return
    num_rows = hidden.shape[:-1].numel()
    outside = ends[(ends < 0) | (ends >= num_rows)]
    if len(outside):
        raise ValueError(f"ends holds {outside[0].item()}, which is none of the {num_rows} rows of hidden")
    values, counts = ends.unique(return_counts=True)
    if len(values) < len(ends):
        raise ValueError(
            f"ends holds {values[counts > 1][0].item()} twice; each response has an end of its own"
        )
