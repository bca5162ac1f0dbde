"""What torch must know about the compiled ops beside their kernels: shapes, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

NUM_STATISTICS = 9


def _bt_loss_shapes(rewards: Tensor, pairs: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (
        rewards.new_empty(()),
        rewards.new_empty(rewards.shape),
        rewards.new_empty(NUM_STATISTICS, dtype=torch.float64),
    )


def _bt_loss_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, grad, statistics = output
    ctx.mark_non_differentiable(grad, statistics)
    ctx.save_for_backward(grad, inputs[0])
    ctx.num_inputs = len(inputs)


def _bt_loss_backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad, rewards = ctx.saved_tensors
    return (_once(grad * grad_loss, "batched_bt_loss", rewards), *[None] * (ctx.num_inputs - 1))


def _once(grad: Tensor, name: str, *inputs: Tensor) -> Tensor:
    """Return a gradient that refuses to be differentiated, instead of passing for a constant."""
    return _Once.apply(grad, name, *inputs) if torch.is_grad_enabled() else grad


class _Once(Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, name: str, *inputs: Tensor) -> Tensor:
        ctx.name = name
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"the compiled {ctx.name} has no second derivative; BASEREWARD_KERNELS=torch chooses one that has"
        )


def register() -> None:
    """Register the rules of every op of the loaded library."""
    name = "basereward::batched_bt_loss"
    torch.library.register_fake(name, _bt_loss_shapes)
    torch.library.register_autograd(name, _bt_loss_backward, setup_context=_bt_loss_save)
    for device_type in ("cpu", "cuda"):
        torch.library.register_autocast(name, device_type, torch.float32)
