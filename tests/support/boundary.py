"""Calls the compiled ops with arguments of every kind, right and wrong; run under AddressSanitizer by
`test_boundary.py`, with the library to load as its argument.

A call may return or raise an error that names what is wrong; it may not touch memory that isn't its own,
which ends the process. Calls go both ways: by the public functions, and straight to the ops, whose checks
have to hold without Python's.
"""

import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

torch.ops.load_library(sys.argv[1])

NUM_EXAMPLES = 1000
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.bool)
SIZES = st.sampled_from([0, 1, 2, 3, 5, 17, 64])
counts = {"returned": 0, "refused": 0}


def tensor(draw, shape, dtype):
    """A tensor of this shape and dtype, mostly; sometimes of another, or with odd strides."""
    shape = list(shape)
    if draw(st.integers(0, 9)) == 0:
        shape = draw(st.lists(SIZES, max_size=4))
    if draw(st.integers(0, 9)) == 0:
        dtype = draw(st.sampled_from(DTYPES))
    value = torch.randn(shape).to(dtype) if dtype in FLOATS else torch.randint(0, 3, shape).to(dtype)
    kind = draw(st.integers(0, 5))
    if kind == 0 and value.dim():
        value = value.repeat_interleave(2, -1)[..., ::2]
    elif kind == 1 and value.dim() > 1:
        value = value.transpose(0, 1).contiguous().transpose(0, 1)
    elif kind == 2 and value.dim() and value.shape[0]:
        value = value[:1].expand_as(value)
    return value


def indices(draw, shape, limit):
    """Places below a limit, mostly; sometimes outside, or huge."""
    value = torch.randint(0, max(limit, 1), tuple(shape))
    if value.numel() and draw(st.integers(0, 3)) == 0:
        value.view(-1)[draw(st.integers(0, value.numel() - 1))] = draw(
            st.sampled_from([-1, limit, limit + 1, 2**40, -(2**63), 2**63 - 1])
        )
    return value if draw(st.integers(0, 9)) else tensor(draw, shape, torch.int64)


def attempt(call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except (RuntimeError, TypeError, ValueError):
        counts["refused"] += 1
        return None
    counts["returned"] += 1
    return result


@st.composite
def losses(draw):
    num_rewards, num_pairs = draw(SIZES), draw(SIZES)
    dtype = draw(st.sampled_from(FLOATS))
    optional = [
        tensor(draw, (num_pairs,), torch.bool),
        tensor(draw, (num_pairs,), dtype),
        tensor(draw, (num_pairs,), dtype),
        tensor(draw, (num_rewards,), torch.int64),
    ]
    return (
        tensor(draw, (num_rewards,), dtype).requires_grad_(False),
        indices(draw, (num_pairs, 2), num_rewards),
        *[part if draw(st.booleans()) else None for part in optional],
    )


@st.composite
def heads(draw):
    width, num_columns, num_responses = draw(SIZES), draw(SIZES), draw(SIZES)
    shape = (draw(SIZES), width) if draw(st.booleans()) else (draw(SIZES), draw(SIZES), width)
    dtype = draw(st.sampled_from(FLOATS))
    num_rows = shape[0] if len(shape) == 2 else shape[0] * shape[1]
    ends = torch.randperm(max(num_rows, 1))[: min(num_responses, num_rows)]
    if draw(st.integers(0, 3)) == 0:
        ends = indices(draw, (num_responses,), num_rows)
    is_linear = draw(st.booleans())
    maybe = lambda value: value if draw(st.booleans()) else None  # noqa: E731
    return {
        "hidden": tensor(draw, shape, draw(st.sampled_from(FLOATS))),
        "ends": maybe(ends),
        "norm": maybe(tensor(draw, (width,), dtype)),
        "w1": None if is_linear else tensor(draw, (num_columns, width), dtype),
        "b1": maybe(tensor(draw, (width if is_linear else num_columns,), dtype)),
        "w2": tensor(draw, (1, width if is_linear else num_columns), dtype),
        "b2": maybe(tensor(draw, (1,), dtype)),
        "activation": draw(st.sampled_from(["none", "tanh", "silu", "relu", "gelu", ""])),
    }


@settings(max_examples=NUM_EXAMPLES, deadline=None, database=None, derandomize=True)
@given(losses())
def fuzz_loss(arguments):
    attempt(torch.ops.basereward.batched_bt_loss, *arguments, 0.1, 0.01, 1.0)
    for differentiable in (False, True):
        attempt(torch.ops.basereward.bt_loss_on_cpu, *arguments, 0.1, 0.01, 1.0, differentiable)
    rewards, pairs, tie, margin, weight, lengths = arguments
    if rewards.is_floating_point():
        rewards = rewards.detach().clone().requires_grad_()
    found = attempt(
        ops.batched_bt_loss, rewards, pairs, tie=tie, margin=margin, weight=weight, lengths=lengths
    )
    if found is not None:
        found[0].backward()


@settings(max_examples=NUM_EXAMPLES, deadline=None, database=None, derandomize=True)
@given(heads(), heads())
def fuzz_head(arguments, others):
    hidden, ends, norm, w1, b1, w2, b2, activation = (arguments[name] for name in ORDER)
    found = attempt(
        torch.ops.basereward.pairwise_reward_head, hidden, ends, norm, 1e-6, w1, b1, w2, b2, activation
    )
    if found is not None:
        rewards, rows, pre = found
        # What the backward is handed need not fit: here some of it belongs to another call.
        for some in (arguments, others):
            attempt(
                torch.ops.basereward.pairwise_reward_head_backward,
                torch.ones_like(rewards), rows, pre, some["ends"], some["norm"], 1e-6, some["w1"], some["b1"],
                some["w2"], some["hidden"].flatten()[:0], list(some["hidden"].shape), activation, True, True,
            )  # fmt: skip
    public = {
        name: value.detach().clone().requires_grad_()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }
    found = attempt(ops.pairwise_reward_head, **public)
    if found is not None and found.requires_grad:
        found.sum().backward()


ORDER = ("hidden", "ends", "norm", "w1", "b1", "w2", "b2", "activation")

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(2)
    from basereward import ops

    assert ops.status()["cpu"]["kernels"] == "cpp", ops.status()["cpu"]["reason"]
    fuzz_loss()
    fuzz_head()
    print(counts["returned"], counts["refused"])
