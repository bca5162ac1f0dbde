"""What torch must know about the compiled ops beside their kernels: shapes, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    ctx.save_for_backward(grad)
    ctx.num_inputs = len(inputs)


@once_differentiable
def _bt_loss_backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    (grad,) = ctx.saved_tensors
    return (grad * grad_loss, *[None] * (ctx.num_inputs - 1))


def register() -> None:
    """Register the rules of every op of the loaded library."""
    name = "basereward::batched_bt_loss"
    torch.library.register_fake(name, _bt_loss_shapes)
    torch.library.register_autograd(name, _bt_loss_backward, setup_context=_bt_loss_save)
    for device_type in ("cpu", "cuda"):
        torch.library.register_autocast(name, device_type, torch.float32)
