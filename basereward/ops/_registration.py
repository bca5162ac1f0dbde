"""Registration of the compiled ops with torch beside their kernels: shapes, gradients, autocast.

Each op has an autograd `Function`, and its rules are registered for the op too. Eager code calls the
Function, whose dispatch takes half the time of the registered rules; compiled code calls the op, which is one
node of its graph. `pairwise_reward_loss` has a Function alone: compiled code calls the two ops that it is
made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

NUM_STATISTICS = 9

# In a Function gradients are off already; a call would pass through the op's registered rule all the same.
_BelowAutograd = torch._C._AutoDispatchBelowAutograd


class BatchedBTLoss(Function):
    """The compiled `batched_bt_loss`, whose forward leaves its gradient for the backward to scale."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, its gradient with respect to the rewards, and statistics."""
        with _BelowAutograd():
            output: tuple[Tensor, Tensor, Tensor] = torch.ops.basereward.batched_bt_loss.default(*arguments)
        BatchedBTLoss.save(ctx, arguments, output)
        return output

    # Under torch's own name, setup_context, apply would look up the signature of forward at every call.
    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep the gradient."""
        _, grad, statistics = output
        ctx.mark_non_differentiable(grad, statistics)
        ctx.set_materialize_grads(False)  # or the backward would be handed zeros for what has no gradient
        ctx.save_for_backward(grad, inputs[0])
        ctx.num_inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Scale it."""
        if grad_loss is None:
            return (None,) * int(ctx.num_inputs)
        grad, rewards = ctx.saved_tensors
        scaled = grad * grad_loss
        if torch.is_grad_enabled():
            scaled = once(scaled, "batched_bt_loss", rewards)
        return (scaled, *[None] * (ctx.num_inputs - 1))

    @staticmethod
    def shapes(rewards: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs without values, for tracing."""
        statistics = rewards.new_empty(NUM_STATISTICS, dtype=torch.float64)
        return rewards.new_empty(()), rewards.new_empty(rewards.shape), statistics


class PairwiseRewardHead(Function):
    """The compiled `pairwise_reward_head`; keeps the rows it picked and their pre-activations."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return rewards, the picked rows and their pre-activations (empty for a linear head)."""
        with _BelowAutograd():
            op = torch.ops.basereward.pairwise_reward_head.default
            output: tuple[Tensor, Tensor, Tensor] = op(*arguments)
        PairwiseRewardHead.save(ctx, arguments, output)
        return output

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep what the backward reads."""
        _, rows, pre = output
        PairwiseRewardHead.keep(ctx, inputs, rows, pre)
        ctx.mark_non_differentiable(rows, pre)

    @staticmethod
    def keep(ctx: Any, inputs: Sequence[Any], rows: Tensor, pre: Tensor, *more: Tensor) -> None:
        """Keep other tensors and what `gradients` reads, nothing of the size of the hidden states."""
        hidden, ends, norm, norm_eps, w1, b1, w2, b2, activation = inputs
        ctx.set_materialize_grads(False)
        # A tensor of the dtype of the hidden states.
        like = None if hidden.dtype == rows.dtype else hidden.new_empty(0)
        ctx.save_for_backward(*more, rows, pre, ends, norm, w1, b1, w2, like)
        ctx.head = (hidden.shape, norm_eps, activation, None if b2 is None else b2.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden states, the norm's weight, w1, b1, w2 and b2."""
        needs = ctx.needs_input_grad
        if grad is None:
            return (None,) * len(needs)
        needed = (needs[0], needs[2], *needs[4:8])
        hidden, norm, *remaining = PairwiseRewardHead.gradients(
            ctx, grad, ctx.saved_tensors, needed, "pairwise_reward_head"
        )
        return (hidden, None, norm, None, *remaining, None)

    @staticmethod
    def gradients(
        ctx: Any, grad: Tensor, saved: Sequence[Tensor | None], needed: Sequence[bool], name: str
    ) -> Sequence[Tensor | None]:
        """Return those of hidden states, norm, w1, b1, w2 and b2 that are needed.

        Args:
            ctx: What `keep` wrote to.
            grad: Gradient of the rewards.
            saved: The tensors that `keep` saved, without the others.
            needed: Which of the gradients are.
            name: The op, for errors.
        """
        rows, pre, ends, norm, w1, b1, w2, like = saved
        shape, norm_eps, activation, offset_shape = ctx.head
        needs_hidden, needs_norm, needs_w1, needs_b1, needs_w2, needs_b2 = needed
        with _BelowAutograd():
            op = torch.ops.basereward.pairwise_reward_head_backward.default
            grads = op(
                grad,
                rows,
                pre,
                ends,
                norm,
                norm_eps,
                w1,
                b1,
                w2,
                rows if like is None else like,
                shape,
                activation,
                needs_hidden,
                needs_w1,
            )
        if torch.is_grad_enabled():
            sources = [tensor for tensor in (norm, w1, b1, w2) if tensor is not None]
            grads = [once(part, name, grad, *sources) for part in grads]
        hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2 = grads
        return (
            hidden if needs_hidden else None,
            grad_norm if needs_norm else None,
            grad_w1 if needs_w1 else None,
            grad_b1 if needs_b1 else None,
            grad_w2 if needs_w2 else None,
            grad_b2.view(offset_shape) if needs_b2 else None,
        )

    @staticmethod
    def shapes(
        hidden: Tensor,
        ends: Tensor | None,
        norm: Any,
        norm_eps: float,
        w1: Tensor | None,
        b1: Any,
        w2: Tensor,
        *_: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs without values, for tracing."""
        num_responses = hidden.shape[:-1].numel() if ends is None else ends.shape[0]
        wide = torch.float64 if w2.dtype == torch.float64 else torch.float32
        rows = w2.new_empty(num_responses, hidden.shape[-1])
        pre = w2.new_empty(0) if w1 is None else w2.new_empty(num_responses, w1.shape[0])
        return w2.new_empty(num_responses, dtype=wide), rows, pre


class PairwiseRewardLoss(Function):
    """The compiled `pairwise_reward_loss`: head and loss in one, whose backward is the head's.

    Its arguments are those that may have gradients, and a tuple of all others: each argument and each result
    of a Function costs time, with a gradient or without.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        norm: Tensor | None,
        w1: Tensor | None,
        b1: Tensor | None,
        w2: Tensor,
        b2: Tensor | None,
        remaining: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, statistics and rewards; `remaining` are ends, norm_eps, activation and the loss's."""
        ends, norm_eps, activation, *of_loss = remaining
        head = (hidden, ends, norm, norm_eps, w1, b1, w2, b2, activation)
        with _BelowAutograd():
            op = torch.ops.basereward.pairwise_reward_loss.default
            loss, statistics, rewards, grad, rows, pre = op(*head, *of_loss)
        PairwiseRewardHead.keep(ctx, head, rows, pre, grad)
        ctx.mark_non_differentiable(statistics, rewards)
        return loss, statistics, rewards

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden states, the norm's weight, w1, b1, w2 and b2."""
        needs = ctx.needs_input_grad
        if grad_loss is None:
            return (None,) * len(needs)
        grad, *saved = ctx.saved_tensors
        grads = PairwiseRewardHead.gradients(ctx, grad * grad_loss, saved, needs[:6], "pairwise_reward_loss")
        return (*grads, None)


def _head_backward_shapes(
    grad: Tensor,
    rows: Tensor,
    pre: Tensor,
    ends: Tensor | None,
    norm: Tensor | None,
    norm_eps: float,
    w1: Tensor | None,
    b1: Tensor | None,
    w2: Tensor,
    like: Tensor,
    shape: Sequence[int],
    activation: str,
    needs_hidden: bool,
    needs_weights: bool,
) -> tuple[Tensor, ...]:
    return (
        like.new_empty(shape if needs_hidden else (0,)),
        w2.new_empty(0 if norm is None else norm.shape[0]),
        w2.new_empty(0) if w1 is None or not needs_weights else w2.new_empty(w1.shape),
        w2.new_empty(0 if b1 is None else b1.shape[0]),
        w2.new_empty(w2.shape),
        w2.new_empty(1),
    )


def once(grad: Tensor, name: str, *inputs: Tensor) -> Tensor:
    """Return a gradient that refuses to be differentiated, instead of passing for a constant."""
    refusing: Tensor = _Once.apply(grad, name, *inputs)
    return refusing


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


def register() -> torch.library.Library:
    """Register the rules of every op of the loaded library; they last as long as the returned objects."""
    rules = torch.library.Library("basereward", "FRAGMENT")
    functions: dict[str, Any] = {"batched_bt_loss": BatchedBTLoss, "pairwise_reward_head": PairwiseRewardHead}
    for name, function in functions.items():
        qualified = f"basereward::{name}"
        torch.library.register_fake(qualified, function.shapes, lib=rules)
        torch.library.register_autograd(qualified, function.backward, setup_context=function.save, lib=rules)
    torch.library.register_fake("basereward::pairwise_reward_head_backward", _head_backward_shapes, lib=rules)
    for device_type in ("cpu", "cuda"):
        torch.library.register_autocast("basereward::batched_bt_loss", device_type, torch.float32, lib=rules)
        for name in ("pairwise_reward_head", "pairwise_reward_head_backward", "pairwise_reward_loss"):
            _ignore_autocast(rules, name, device_type)
    return rules


def _ignore_autocast(rules: torch.library.Library, name: str, device_type: str) -> None:
    """Keep autocast from the matrix products inside an op, whose dtype is its weights'."""
    op = getattr(torch.ops.basereward, name).default

    def plain(*arguments: Any) -> Any:
        with torch.autocast(device_type, enabled=False):
            return op(*arguments)

    rules.impl(name, plain, f"Autocast{device_type.upper()}")
