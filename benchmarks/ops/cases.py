"""Cases of the benchmarks of the ops: sizes by the names of models, and each op beside what it replaces.

Tensors are made on torch's default device, when the case is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from basereward import ops
from basereward.ops import reference
from basereward.testing.native.timing import Case, Run

WIDTHS = {"qwen2.5-vl-3b": 2048, "qwen2.5-vl-7b": 3584, "qwen2.5-vl-72b": 8192}
PAIRS = (8, 64, 512, 4096)
MANY_PAIRS = 1_048_576
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOSS_OPTIONS = (0.1, 0.01, 1.0)  # label smoothing, zero-coefficient, ties count half


def bt_loss(num_pairs: int) -> Case:
    """Return the Bradley-Terry loss, forward and backward, with all options and statistics."""
    torch.manual_seed(0)
    uniform = torch.rand(3, num_pairs)
    rewards = torch.randn(2 * num_pairs).requires_grad_()
    pairs = torch.arange(2 * num_pairs).reshape(-1, 2)
    tie, margin, weight = uniform[0] < 0.1, uniform[1], uniform[2]
    lengths = torch.randint(1, 1000, (2 * num_pairs,))
    smoothing, zero, _ = LOSS_OPTIONS

    def native() -> tuple[Tensor, ...]:
        loss, statistics = ops.batched_bt_loss(
            rewards,
            pairs,
            tie=tie,
            margin=margin,
            weight=weight,
            lengths=lengths,
            label_smoothing=smoothing,
            zero_coefficient=zero,
            ties="half",
        )
        return (*torch.autograd.grad(loss, rewards), loss.detach(), statistics)

    def plain(function: Callable[..., tuple[Tensor, Tensor]]) -> Run:
        def run() -> tuple[Tensor, ...]:
            loss, statistics = function(rewards, pairs, tie, margin, weight, lengths, *LOSS_OPTIONS)
            return (*torch.autograd.grad(loss, rewards), loss.detach(), statistics)

        return run

    return Case(
        name=f"BT loss x {num_pairs}",
        ours="native",
        variants={
            "native": native,
            "eager": plain(reference.batched_bt_loss),
            # Compiled for this very size, which is the best it can be.
            "compile": plain(torch.compile(reference.batched_bt_loss, dynamic=False)),
        },
        # Two rewards, two indices, tie, margin, weight, two lengths; two gradients written, read, written.
        num_bytes=num_pairs * (8 + 16 + 1 + 4 + 4 + 16 + 8 + 8 + 8),
        num_flops=0,
        dtype=torch.float32,
        tolerance=1e-5,
    )


def lean_bt_loss(num_pairs: int) -> Case:
    """Return the loss without options, forward and backward, beside plain torch that computes just that, and
    the nine statistics."""
    torch.manual_seed(0)
    rewards = torch.randn(2 * num_pairs).requires_grad_()
    pairs = torch.arange(2 * num_pairs).reshape(-1, 2)

    def run(function: Callable[..., tuple[Tensor, Tensor]]) -> Run:
        def both() -> tuple[Tensor, ...]:
            loss, statistics = function(rewards, pairs)
            return (*torch.autograd.grad(loss, rewards), loss.detach(), statistics)

        return both

    return Case(
        name=f"BT loss, no options x {num_pairs}",
        ours="native",
        variants={
            "native": run(ops.batched_bt_loss),
            "eager": run(eager_bt_loss),
            "compile": run(torch.compile(eager_bt_loss, dynamic=False)),
        },
        # Two rewards, two indices, two gradients written, read, written.
        num_bytes=num_pairs * (8 + 16 + 8 + 8 + 8),
        num_flops=0,
        dtype=torch.float32,
        tolerance=1e-5,
    )


def eager_bt_loss(rewards: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of -log sigmoid(r_c - r_r), and the sums of `ops.STATISTICS` of unweighted pairs."""
    chosen, rejected = rewards[pairs].unbind(1)  # [P], [P]
    loss = -functional.logsigmoid(chosen - rejected).mean()
    with torch.no_grad():
        first, second = chosen.double(), rejected.double()
        margin = first - second
        count = margin.new_tensor(float(len(pairs)))
        correct = ((margin > 0).double() + (margin == 0).double() / 2).sum()
        sums = [margin.sum(), margin.square().sum(), first.sum(), second.sum()]
        extremes = [rewards.min().double(), rewards.max().double()]
        return loss, torch.stack([count, correct, *sums, *extremes, count])


def reward_head(model: str, num_pairs: int, dtype: str) -> Case:
    """Return a head of two layers on the rows of its responses, forward and backward, beside its products."""
    width, num_rows = WIDTHS[model], 2 * num_pairs
    parameters = head_parameters(width, DTYPES[dtype])
    rows = torch.randn(num_rows, width).to(DTYPES[dtype]).requires_grad_()
    upstream = torch.randn(num_rows)
    w1 = parameters[0].detach()
    grad_pre = torch.randn(num_rows, width).to(DTYPES[dtype])
    plain_rows = rows.detach()

    def products() -> tuple[Tensor, ...]:
        return plain_rows @ w1.t(), grad_pre @ w1, grad_pre.t() @ plain_rows

    size = width * width
    return Case(
        name=f"head {dtype}, {model} x {num_pairs}",
        ours="native",
        variants={
            "native": lambda: _with_gradients(
                ops.pairwise_reward_head(rows, None, *parameters), rows, parameters, upstream
            ),
            "eager": lambda: _with_gradients(eager_head(rows, parameters), rows, parameters, upstream),
            "products": products,
        },
        num_bytes=w1.element_size() * (3 * size + 8 * num_rows * width),
        num_flops=6 * num_rows * size,
        dtype=DTYPES[dtype],
        tolerance=1e-4 if dtype == "fp32" else 3e-2,
    )


def reward_loss(width: int, num_pairs: int) -> Case:
    """Return head and loss in one op on the rows of the responses, forward and backward, in fp32, beside the
    two ops and plain torch."""
    parameters = head_parameters(width, torch.float32)
    rows = torch.randn(2 * num_pairs, width).requires_grad_()
    pairs = torch.arange(2 * num_pairs).reshape(-1, 2)

    def run(loss_of: Callable[[], tuple[Tensor, ...]]) -> Run:
        def both() -> tuple[Tensor, ...]:
            loss, statistics = loss_of()[:2]
            return (*torch.autograd.grad(loss, (rows, *parameters)), loss.detach(), statistics)

        return both

    size = width * width
    return Case(
        name=f"head of width {width} and BT loss x {num_pairs}",
        ours="native",
        variants={
            "native": run(lambda: ops.pairwise_reward_loss(rows, None, *parameters, pairs)),
            "two ops": run(
                lambda: ops.batched_bt_loss(ops.pairwise_reward_head(rows, None, *parameters), pairs)
            ),
            "eager": run(lambda: eager_bt_loss(eager_head(rows, parameters)[:, 0], pairs)),
        },
        num_bytes=4 * (3 * size + 16 * num_pairs * width),
        num_flops=12 * num_pairs * size,
        dtype=torch.float32,
        tolerance=1e-4,
    )


def every_token(
    dtype: str,
    passes: str,
    *,
    model: str = "qwen2.5-vl-7b",
    num_pairs: int = 8,
    num_tokens: int = 256,
) -> Case:
    """Return a head on hidden states [2 P, L, D] beside one that scores every token, then picks.

    Args:
        dtype: Of hidden states and weights.
        passes: "both", the gradient of all hidden states included, or "forward".
        model: Whose width to take.
        num_pairs: P.
        num_tokens: L.
    """
    width, num_responses = WIDTHS[model], 2 * num_pairs
    parameters = head_parameters(width, DTYPES[dtype])
    hidden = torch.randn(num_responses, num_tokens, width).to(DTYPES[dtype]).requires_grad_()
    ends = torch.arange(1, num_responses + 1) * num_tokens - 1
    upstream = torch.randn(num_responses)

    def run(rewards_of: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        if passes == "both":
            return _with_gradients(rewards_of(), hidden, parameters, upstream)
        with torch.no_grad():
            return (rewards_of(),)

    variants = {
        "native": lambda: ops.pairwise_reward_head(hidden, ends, *parameters),
        "every token": lambda: eager_head(hidden, parameters).flatten()[ends],
    }
    both = passes == "both"
    size = width * width
    return Case(
        name=f"head {dtype}, {model} x {num_pairs}, {num_tokens} tokens each, {passes}",
        ours="native",
        variants={name: partial(run, rewards_of) for name, rewards_of in variants.items()},
        num_bytes=hidden.element_size() * (3 * size + hidden.numel() if both else size),
        num_flops=(6 if both else 2) * num_responses * size,
        dtype=DTYPES[dtype],
        tolerance=1e-4 if dtype == "fp32" else 3e-2,
    )


def few_rows(num_rows: int, *, model: str = "qwen2.5-vl-7b") -> Case:
    """Return the forward pass of a head in fp32 on few rows, which is bound by reading its weights."""
    width = WIDTHS[model]
    parameters = [parameter.detach() for parameter in head_parameters(width, torch.float32)]
    rows = torch.randn(num_rows, width)
    return Case(
        name=f"head fp32, forward, {model}, {num_rows} rows",
        ours="native",
        variants={
            "native": lambda: (ops.pairwise_reward_head(rows, None, *parameters),),
            "eager": lambda: (eager_head(rows, parameters)[..., 0],),
            "products": lambda: (rows @ parameters[0].t(), rows),
        },
        num_bytes=4 * width * (width + 3 * num_rows),
        num_flops=2 * num_rows * width * width,
        dtype=torch.float32,
        tolerance=1e-4,
    )


def head_parameters(width: int, dtype: torch.dtype) -> list[Tensor]:
    """Return w1, b1, w2 and b2 of a head of two layers, with gradients."""
    torch.manual_seed(1)
    shapes = ((width, width), (width,), (1, width), (1,))
    return [(torch.randn(shape) / width**0.5).to(dtype).requires_grad_() for shape in shapes]


def eager_head(hidden: Tensor, parameters: list[Tensor]) -> Tensor:
    """Return what `nn.Sequential(Linear, SiLU, Linear)` does, in fp32 at the end: [..., D] -> [..., 1]."""
    w1, b1, w2, b2 = parameters
    return functional.linear(functional.silu(functional.linear(hidden, w1, b1)), w2, b2).float()


def _with_gradients(
    rewards: Tensor, hidden: Tensor, parameters: list[Tensor], upstream: Tensor
) -> tuple[Tensor, ...]:
    rewards = rewards.flatten()
    return (*torch.autograd.grad(rewards, (hidden, *parameters), upstream), rewards.detach())
