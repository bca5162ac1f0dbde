"""Checks of a loss: it prefers the better response, is finite everywhere, and adds up over batches."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from basereward import ops
from basereward.comparison import Comparison
from basereward.errors import PluginError
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.ops import STATISTICS
from basereward.testing.material import rated
from basereward.testing.native.kernels import require_plain_kernels_agree
from basereward.testing.subject import Failed, Subject, checks_of, require, require_alike, require_near

FAR = 1e4
MIN, MAX = STATISTICS.index("min"), STATISTICS.index("max")


def gives_a_loss_output(subject: Subject) -> None:
    """It returns a `LossOutput`, scalars and detached fp64 sums; or a tensor, the mean [] or costs [P]."""
    try:
        output = _built(subject)(*_batch())
    except PluginError as error:
        raise Failed(str(error)) from error
    for name in ("loss", "weight"):
        shape = list(getattr(output, name).shape)
        require(shape == [], f"the {name} has shape {shape}, not []")
    shape = list(output.sums.shape)
    require(shape == [len(STATISTICS)], f"the sums have shape {shape}, not [{len(STATISTICS)}]")
    require(output.sums.dtype == torch.float64, f"the sums are {output.sums.dtype}, not fp64")
    require(not output.sums.requires_grad, "the sums are not detached")


def has_sums_in_the_order_of_statistics(subject: Subject) -> None:
    """`sums` are those of `basereward.losses.STATISTICS`, of the rewards as given."""
    rewards, targets = _batch()
    output = _built(subject)(rewards, targets)
    expected = ops.pair_statistics(rewards, targets.pairs, targets.tie, output.weight.detach())
    for name, actual, wanted in zip(STATISTICS, output.sums, expected, strict=True):
        # fp32 rewards squared and summed in another order differ in the last of their digits.
        require_alike(actual, wanted, f"the sum {name!r}, and what it should be", tolerance=1e-4)


def has_the_right_gradient(subject: Subject) -> None:
    """The gradient is that of finite differences, in fp64."""
    loss = _built(subject)
    rewards, targets = _batch()
    try:
        # Parameters of the loss itself are trained with the head and checked with it.
        torch.autograd.gradcheck(
            lambda given: loss(given, targets).loss, (rewards.double().requires_grad_(),), atol=1e-6
        )
    except RuntimeError as error:
        require(False, f"the gradient is not that of finite differences: {str(error).splitlines()[0]}")


def prefers_the_better_response(subject: Subject) -> None:
    """The loss is lower where the better response has the higher reward."""
    loss = _built(subject)
    right, wrong = (_of_margin(loss, margin) for margin in (2.0, -2.0))
    require(
        right < wrong,
        f"the loss is {right:.4g} with the better response ahead by 2, {wrong:.4g} with it behind",
    )


def never_rises_with_a_margin(subject: Subject) -> None:
    """The loss of a pair never rises as the better response's lead grows."""
    loss = _built(subject)
    margins = torch.linspace(-20, 20, 161).tolist()
    losses = [_of_margin(loss, margin) for margin in margins]
    for number in range(1, len(losses)):
        require(
            losses[number] <= losses[number - 1] + 1e-6 * abs(losses[number - 1]),
            f"the loss rises from {losses[number - 1]:.6g} to {losses[number]:.6g} "
            f"as the margin grows from {margins[number - 1]:g} to {margins[number]:g}",
        )


def is_finite_far_out(subject: Subject) -> None:
    """Loss and gradient are finite at rewards of +-1e4."""
    loss = _built(subject)
    _, targets = _batch()
    num = len(targets.group)
    signs = torch.where(torch.arange(num) % 2 == 0, 1.0, -1.0)
    for name, far in (("+1e4", torch.ones(num)), ("+-1e4", signs), ("-+1e4", -signs)):
        rewards = (FAR * far).requires_grad_()
        actual = loss(rewards, targets).loss
        require(bool(actual.isfinite()), f"at rewards of {name} the loss is {actual.item()}")
        (gradient,) = torch.autograd.grad(actual, rewards)
        require(bool(gradient.isfinite().all()), f"at rewards of {name} the gradient is not finite")


def says_what_it_does_with_ties(subject: Subject) -> None:
    """The docstring names the treatment of ties; a batch of ties alone is finite, whatever their order."""
    text = inspect.getdoc(subject.cls) or ""
    require(
        re.search(r"\btie[sd]?\b|\btying\b", text, re.IGNORECASE),
        "the docstring doesn't say what it does with ties",
    )
    loss = _built(subject)
    targets = _targets([rated([1.0, 1.0])])
    rewards = torch.tensor([0.7, -0.4], requires_grad=True)
    actual, turned = (loss(given, targets).loss for given in (rewards, rewards.flip(0)))
    require(bool(actual.isfinite()), f"of a batch of ties the loss is {actual.item()}")
    require_near(turned, actual, "the loss of a tie, either response first")


def says_what_it_learns_from(subject: Subject) -> None:
    """`untrainable_reason` refuses the comparisons that have no gradient, and no others."""
    criterion, loss = subject.build(), _built(subject)
    rows = {"a pair": rated([1.0, 2.0]), "ties alone": rated([1.0, 1.0]), "one response": rated([2.0])}
    for name, row in rows.items():
        rewards = torch.arange(1.0, len(row.responses) + 1).mul(0.1234567).requires_grad_()
        actual = loss(rewards, _targets([row])).loss
        gradient = (
            torch.autograd.grad(actual, rewards, allow_unused=True)[0] if actual.requires_grad else None
        )
        has_gradient = gradient is not None and bool(gradient.any())
        error = criterion.untrainable_reason(row)
        require(
            has_gradient == (error is None),
            f"of {name} the loss has {'a' if has_gradient else 'no'} gradient, but untrainable_reason says: "
            f"{error}; see learns_from_ties and learns_from_single",
        )


def adds_up_over_batches(subject: Subject) -> None:
    """loss * weight and the sums of two batches are those of both together; min and max are min and max."""
    loss = _built(subject)
    rows = _rows()
    rewards = _rewards(rows)
    cut = sum(len(row.responses) for row in rows[:2])
    first, second = loss(rewards[:cut], _targets(rows[:2])), loss(rewards[cut:], _targets(rows[2:]))
    both = loss(rewards, _targets(rows))
    require_alike(
        first.loss * first.weight + second.loss * second.weight,
        both.loss * both.weight,
        "loss * weight of two batches added up, and of both together",
        tolerance=1e-4,
    )
    require_near(
        first.weight + second.weight, both.weight, "the weights of two batches, and of both together"
    )
    joined = first.sums + second.sums
    joined[MIN] = torch.minimum(first.sums[MIN], second.sums[MIN])
    joined[MAX] = torch.maximum(first.sums[MAX], second.sums[MAX])
    require_alike(joined, both.sums, "the sums of two batches, and of both together", tolerance=1e-4)


def counts_a_weight_as_repetition(subject: Subject) -> None:
    """A comparison of weight 2 counts as two of weight 1."""
    loss = _built(subject)
    heavy, light, other = rated([3, 1, 2], weight=2.0), rated([3, 1, 2]), rated([2, 1], seed=5)
    rewards = _rewards([heavy, other])
    weighed = loss(rewards, _targets([heavy, other]))
    repeated = loss(torch.cat([rewards[:3], rewards]), _targets([light, light, other]))
    require_near(
        weighed.loss, repeated.loss, "the loss with a comparison of weight 2, and with that comparison twice"
    )
    nothing = loss(_rewards([rated([2, 1])]), _targets([rated([2, 1], weight=0.0)])).loss
    require(nothing.item() == 0, f"of comparisons of weight 0 the loss is {nothing.item()}, not 0")


def ignores_the_order_of_pairs(subject: Subject) -> None:
    """Neither the order of the pairs nor that of the comparisons changes the loss."""
    loss = _built(subject)
    rows = _rows()
    rewards, targets = _rewards(rows), _targets(rows)
    expected = loss(rewards, targets).loss
    order = torch.randperm(len(targets.pairs), generator=torch.Generator().manual_seed(0))
    by_pair: dict[str, Any] = {
        "pairs": targets.pairs,
        "tie": targets.tie,
        "margin": targets.margin,
        "weight": targets.weight,
    }
    shuffled = {name: value[order] for name, value in by_pair.items() if value is not None}
    require_near(
        loss(rewards, replace(targets, **shuffled)).loss,
        expected,
        "the loss with the pairs in another order, and in theirs",
    )
    parts = rewards.split([len(row.responses) for row in rows])
    require_near(
        loss(torch.cat(parts[::-1]), _targets(rows[::-1])).loss,
        expected,
        "the loss with the comparisons in another order, and in theirs",
    )


def gives_fp32(subject: Subject) -> None:
    """The loss is fp32, of bf16 rewards and under autocast too."""
    loss = _built(subject)
    rewards, targets = _batch()
    rounded = rewards.bfloat16()
    expected = loss(rounded.float(), targets).loss
    require(expected.dtype == torch.float32, f"of fp32 rewards the loss is {expected.dtype}")
    actual = loss(rounded, targets).loss
    require(actual.dtype == torch.float32, f"of bf16 rewards the loss is {actual.dtype}, not fp32")
    require_near(actual, expected, "the loss of bf16 rewards, and of the same in fp32")
    with torch.autocast("cpu", torch.bfloat16):
        actual = loss(rounded.float(), targets).loss
    require_near(actual, expected, "the loss under autocast, and without it")


def agrees_with_the_plain_kernels(subject: Subject) -> None:
    """The compiled kernels give the loss, the gradient and the sums that BASEREWARD_KERNELS=torch gives."""
    loss = _built(subject)
    rewards, targets = _batch()

    def results() -> dict[str, Tensor]:
        leaf = rewards.clone().requires_grad_()
        output = loss(leaf, targets)
        (gradient,) = torch.autograd.grad(output.loss, leaf)
        return {"the loss": output.loss, "the gradient": gradient, "the sums": output.sums}

    require_plain_kernels_agree(results)


def _built(subject: Subject) -> Callable[[Tensor, Targets], LossOutput]:
    """Return the loss as a paradigm calls it."""
    return functools.partial(apply_loss, subject.build())


def _rows() -> list[Comparison]:
    """Return comparisons of two and three responses, one of them with a tie, with unequal weights."""
    return [
        rated([2, 1], seed=1),
        rated([3, 1, 2], weight=0.5, seed=2),
        rated([1, 1], seed=3),
        rated([1, 2, 2], weight=2.0, seed=4),
    ]


def _targets(rows: Sequence[Comparison]) -> Targets:
    lengths = [len(response.split()) for row in rows for response in row.responses]
    return Targets.of(rows, lengths)


def _rewards(rows: Sequence[Comparison]) -> Tensor:  # [N]
    num = sum(len(row.responses) for row in rows)
    return torch.randn(num, generator=torch.Generator().manual_seed(2))


def _batch() -> tuple[Tensor, Targets]:
    rows = _rows()
    return _rewards(rows), _targets(rows)


def _of_margin(loss: Any, margin: float) -> float:
    rewards = torch.tensor([margin / 2, -margin / 2])
    return float(loss(rewards, _targets([rated([2, 1])])).loss.detach())


CHECKS = checks_of(__name__)
