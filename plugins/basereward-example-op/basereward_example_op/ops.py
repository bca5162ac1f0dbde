"""The op: compiled where it was built, and in plain torch, which is its definition."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from basereward.ops import Library

DTYPES: Final = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

library: Final = Library("basereward_example_op", ("gated_reward", "gated_reward_backward"))


def gated_reward(
    gate: Tensor,  # [N, H]
    up: Tensor,  # [N, H]
    weight: Tensor,  # [H]
) -> Tensor:  # [N]
    """Return sum_h weight_h silu(gate_nh) up_nh of each row n: what a gated head ends with.

    Nothing of the size [N, H] is written but the gradients.

    Args:
        gate: What decides how much of `up` passes.
        up: What passes.
        weight: Of the columns.

    Returns:
        Rewards in fp32, or fp64 for fp64 tensors; differentiable once where the kernels are compiled.

    Raises:
        TypeError: For a dtype that isn't fp64, fp32, bf16 or fp16, or for several of them.
        ValueError: For a shape or a device that doesn't fit.
        ConfigError: When BASEREWARD_KERNELS asks for kernels that aren't there.
    """
    if gate.dtype not in DTYPES:
        raise TypeError(f"gate has dtype {gate.dtype}; float64, float32, bfloat16 or float16 is needed")
    if gate.dim() != 2:
        raise ValueError(f"gate has shape {list(gate.shape)}; [N, H] is needed")
    for name, tensor, shape in (("up", up, gate.shape), ("weight", weight, gate.shape[1:])):
        if tensor.dtype != gate.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype}, but gate {gate.dtype}")
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}; {list(shape)} is needed")
        if tensor.device != gate.device:
            raise ValueError(f"{name} is on {tensor.device}, but gate on {gate.device}")
    if library.compiled(gate.device.type):
        rewards: Tensor = torch.ops.basereward_example_op.gated_reward(gate, up, weight)
        return rewards
    return reference(gate, up, weight)


def reference(gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:  # [N, H], [N, H], [H] -> [N]
    """Return the same in plain torch."""
    wide = torch.float64 if gate.dtype == torch.float64 else torch.float32
    return (functional.silu(gate.to(wide)) * up.to(wide) * weight.to(wide)).sum(1)


# What torch must know about the compiled op beside its kernels: shapes and gradients.


def _shapes(gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    wide = torch.float64 if gate.dtype == torch.float64 else torch.float32
    return gate.new_empty(gate.shape[0], dtype=wide)


def _backward_shapes(grad: Tensor, gate: Tensor, up: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape), gate.new_empty(gate.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor]
    grads = torch.ops.basereward_example_op.gated_reward_backward(grad, *ctx.saved_tensors)
    return grads


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "the compiled gated_reward has no second derivative; BASEREWARD_KERNELS=torch chooses one that has"
    )


if library.cpu.module is not None:
    torch.library.register_fake("basereward_example_op::gated_reward", _shapes)
    torch.library.register_fake("basereward_example_op::gated_reward_backward", _backward_shapes)
    torch.library.register_autograd("basereward_example_op::gated_reward", _backward, setup_context=_save)
    torch.library.register_autograd("basereward_example_op::gated_reward_backward", _refuse)
