"""What torch must know about the compiled ops beside their kernels: shapes, gradients, autocast.

Each op has an autograd `Function`, and its rules are registered for the op too. Eager code calls the
Function, whose dispatch takes half the time of the registered rules; compiled code calls the op, which is one
node of its graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

NUM_STATISTICS = 9


class BatchedBTLoss(Function):
    """The compiled `batched_bt_loss`, whose forward leaves its gradient for the backward to scale."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, its gradient with respect to the rewards, and statistics."""
        output: tuple[Tensor, Tensor, Tensor] = torch.ops.basereward.batched_bt_loss.default(*arguments)
        BatchedBTLoss.save(ctx, arguments, output)
        return output

    # Under torch's own name, setup_context, apply would look up the signature of forward at every call.
    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep the gradient."""
        _, grad, statistics = output
        ctx.mark_non_differentiable(grad, statistics)
        ctx.save_for_backward(grad, inputs[0])
        ctx.num_inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Scale it."""
        grad, rewards = ctx.saved_tensors
        return (_once(grad * grad_loss, "batched_bt_loss", rewards), *[None] * (ctx.num_inputs - 1))

    @staticmethod
    def shapes(rewards: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs without values, for tracing."""
        statistics = rewards.new_empty(NUM_STATISTICS, dtype=torch.float64)
        return rewards.new_empty(()), rewards.new_empty(rewards.shape), statistics


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
    for name, function in {"basereward::batched_bt_loss": BatchedBTLoss}.items():
        torch.library.register_fake(name, function.shapes)
        torch.library.register_autograd(name, function.backward, setup_context=function.save)
        for device_type in ("cpu", "cuda"):
            torch.library.register_autocast(name, device_type, torch.float32)
