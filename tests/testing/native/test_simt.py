"""The CUDA kernels' source, run on the CPU: lanes are fibers, and schedules show what an ordering would
hide."""

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from basereward.ops import reference
from basereward.testing import Failed
from basereward.testing.native.simt import (
    COMPILER,
    SANITIZERS,
    SCHEDULES,
    CompileError,
    as_array,
    as_floats,
    compile_module,
    compile_source,
    same_under_every_schedule,
)

SOURCES = Path(__file__).parents[3] / "csrc"
DTYPES = {"float32": torch.float32, "float64": torch.float64}

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    pytest.importorskip("pybind11")
    directory = tmp_path_factory.mktemp("shim")
    return compile_module(SOURCES / "testing" / "basereward_shim.cpp", directory, [SOURCES])


# Each value meets each other one.
@pytest.mark.parametrize(
    ("sorts", "options", "dtype"),
    [
        (False, False, "float32"),
        (False, True, "float64"),
        (True, False, "float64"),
        (True, True, "float32"),
    ],
)
@pytest.mark.parametrize(
    ("num_rewards", "num_pairs", "num_blocks"),
    [(1, 0, 1), (2, 1, 1), (3, 31, 1), (7, 33, 2), (300, 257, 1), (40, 1000, 3)],
)
def test_bt_loss_equals_the_reference(shim, num_rewards, num_pairs, num_blocks, sorts, options, dtype):
    generator = torch.Generator().manual_seed(num_pairs)
    rewards = torch.randn(num_rewards, generator=generator, dtype=torch.float64) * 3
    rewards = rewards.to(DTYPES[dtype]).requires_grad_()
    pairs = torch.randint(0, num_rewards, (num_pairs, 2), generator=generator)
    uniform = torch.rand(3, num_pairs, generator=generator, dtype=DTYPES[dtype])
    lengths = torch.randint(1, 900, (num_rewards,), generator=generator)
    tensors = (uniform[0] < 0.2, uniform[1], uniform[2], lengths) if options else (None,) * 4
    numbers = (0.1, 0.02, 1.0) if options else (0.0, 0.0, 0.0)

    loss, grad, statistics = same_under_every_schedule(
        lambda schedule, seed: getattr(shim, dtype).bt_loss(
            as_array(rewards),
            as_array(pairs),
            *map(as_array, tensors),
            *numbers,
            num_blocks,
            sorts,
            schedule,
            seed,
        )
    )
    wanted, wanted_statistics = reference.batched_bt_loss(rewards, pairs, *tensors, *numbers)
    (wanted_grad,) = torch.autograd.grad(wanted, rewards)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}
    assert_close(loss[0], wanted.detach(), **tolerance)
    assert_close(grad, wanted_grad, **tolerance)
    assert_close(statistics, wanted_statistics, **tolerance)


def test_bt_loss_of_huge_and_missing_rewards(shim):
    call = shim.float32.bt_loss
    rewards = np.array([1e4, -1e4, np.nan], dtype=np.float32)

    def loss_of(pairs, schedule="greedy"):
        pairs = np.array(pairs, dtype=np.int64)
        return call(rewards, pairs, None, None, None, None, 0.0, 0.0, 0.0, 1, False, schedule, 1)

    loss, grad, _ = loss_of([[0, 1]])
    assert (loss[0], *grad) == (0, 0, 0, 0)
    loss, grad, _ = loss_of([[1, 0]])
    assert (loss[0], *grad) == (2e4, 1, -1, 0)
    loss, _, statistics = loss_of([[2, 0]])
    assert np.isnan(loss[0])
    assert (statistics[1], *statistics[6:]) == (0, -1e4, 1e4, 1)  # correct, min, max, pairs


def test_an_index_that_is_none_gives_nan(shim):
    rewards = np.array([1.0, 2.0])
    for pairs, sorts in itertools.product(([[0, 1], [0, 2]], [[0, 1], [-1, 0]]), (False, True)):
        loss, grad, statistics = shim.float64.bt_loss(
            rewards, np.array(pairs), None, None, None, np.array([3, 4]), 0.0, 0.0, 0.0, 1, sorts, "greedy", 1
        )
        assert np.isnan(loss[0])
        assert np.isnan(grad[0])
        assert statistics[8] == 2
    hidden, ends = np.ones((2, 3, 4)), np.array([5, 6, -1])
    rows = shim.float64.gather(hidden, ends, "greedy", 1)
    assert np.isnan(rows).any(1).tolist() == [False, True, True]


# The sums of up to 8 responses are of one chunk, those of 20 of three.
HEADS = [(1, 1), (3, 31), (5, 257), (9, 300), (20, 3)]
ACTIVATIONS = ["none", "tanh", "silu", "relu"]
# Each size meets each dtype and each activation, and each dtype each activation.
CASES = [
    (size, ACTIVATIONS[(row + column) % 4], dtype)
    for row, size in enumerate(HEADS)
    for column, dtype in enumerate(["float32", "float64", "bfloat16", "float16"])
]


@pytest.mark.parametrize(("size", "activation", "dtype"), CASES, ids=str)
def test_reward_head_equals_the_reference(shim, size, activation, dtype):
    num_responses, width = size
    kernels, dtype = getattr(shim, dtype), getattr(torch, dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(width)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    hidden = normal(2, num_responses, 6)
    ends = torch.randperm(2 * num_responses, generator=generator)[:num_responses]
    norm, w1, b1, w2, b2 = normal(6), normal(width, 6), normal(width), normal(width), normal(1)
    upstream = torch.linspace(-1, 2, num_responses, dtype=wide)

    def run(name, *inputs):
        inputs = [as_array(part) if isinstance(part, torch.Tensor) else part for part in inputs]
        return as_floats(
            same_under_every_schedule(lambda *plan: getattr(kernels, name)(*inputs, *plan)), dtype
        )

    (rows,) = run("gather", hidden, ends)
    normed, scale = run("norm", rows, norm, 1e-6)
    pre = normed @ w1.detach().t()
    (rewards,) = run("reward", pre, b1, w2, b2, activation)
    grad_pre, grad_b1, grad_w2, grad_b2 = run("slope", upstream, pre, b1, w2, activation)
    grad_rows, grad_norm = run("norm_backward", grad_pre @ w1.detach(), rows, norm, scale)
    (grad_hidden,) = run("scatter", grad_rows, ends, 2 * num_responses)
    grads = (grad_hidden.view_as(hidden), grad_norm, grad_pre.t() @ normed, grad_b1, grad_w2, grad_b2)

    def gradients(dtype):
        """The reference's rewards and gradients, computed in a dtype."""
        given = [part.detach().to(dtype).requires_grad_() for part in (hidden, norm, w1, b1, w2, b2)]
        rewards = reference.pairwise_reward_head(
            given[0], ends, given[1], 1e-6, *given[2:5], given[5], activation
        )
        return rewards.detach(), torch.autograd.grad((rewards * upstream).sum(), given)

    def error(given, wanted):
        return ((given.double() - wanted).norm() / wanted.norm().clamp_min(1e-30)).item()

    wanted, wanted_grads = gradients(torch.float64)
    plain, plain_grads = gradients(dtype)
    # Not further from the truth than twice what plain torch is in the same dtype.
    floor = {torch.float64: 1e-13, torch.float32: 1e-5}.get(dtype, 1e-2)
    assert torch.equal(rows, hidden.detach().flatten(0, 1)[ends])
    assert error(rewards, wanted) <= 2 * error(plain, wanted) + floor
    for grad, plain_grad, wanted_grad in zip(grads, plain_grads, wanted_grads, strict=True):
        assert error(grad, wanted_grad) <= 2 * error(plain_grad, wanted_grad) + floor


@pytest.mark.parametrize("num_responses", [0, 512, 513, 600])
def test_sums_over_many_responses(shim, num_responses):
    pre, weight = torch.randn(num_responses, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    upstream = torch.randn(num_responses, dtype=torch.float64)
    arguments = [as_array(part) for part in (upstream, pre, torch.zeros(3, dtype=torch.float64), weight)]
    grad_pre, grad_b1, grad_w2, grad_b2 = same_under_every_schedule(
        lambda *plan: shim.float64.slope(*arguments, "tanh", *plan)
    )
    slopes = upstream[:, None] * weight * (1 - pre.tanh().square())
    for given, wanted in (
        (grad_pre, slopes),
        (grad_b1, slopes.sum(0)),
        (grad_w2, upstream @ pre.tanh()),
        (grad_b2, upstream.sum(0, keepdim=True)),
    ):
        assert_close(given, wanted, rtol=1e-12, atol=1e-12)


LAYOUTS = {
    "plain": lambda hidden: hidden[:2],
    "every second batch": lambda hidden: hidden[::2],
    "batch second": lambda hidden: hidden[:2].transpose(0, 1).contiguous().transpose(0, 1),
    "columns first": lambda hidden: hidden[:2].transpose(1, 2).contiguous().transpose(1, 2),
    "every second column": lambda hidden: hidden[:2, :, ::2],
    "every third row": lambda hidden: hidden[:2, ::3],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_gathered_from_any_strides(shim, layout, dtype):
    gather = (shim.float32 if dtype == torch.float32 else shim.bfloat16).gather
    hidden = LAYOUTS[layout](torch.randn(4, 6, 40).to(dtype))
    ends = torch.tensor([hidden.shape[:2].numel() - 1, 0, 2])
    (rows,) = as_floats(
        same_under_every_schedule(lambda *plan: gather(as_array(hidden), as_array(ends), *plan)), dtype
    )
    assert torch.equal(rows, hidden.flatten(0, 1)[ends])


def planted(shim, fault):
    """The results of a kernel with a known fault, which should be 256 ones added up, under each schedule."""
    return [shim.planted(np.arange(256, dtype=np.float64), fault, *schedule) for schedule in SCHEDULES]


def test_a_sound_kernel_gives_the_same_under_every_schedule(shim):
    assert planted(shim, "none") == [255 * 256 / 2] * len(SCHEDULES)


def test_a_missing_barrier_reads_shared_memory_that_is_nan(shim):
    assert any(np.isnan(result) for result in planted(shim, "missing barrier"))


def test_a_race_gives_another_result_under_another_schedule(shim):
    assert len(set(planted(shim, "race"))) > 1
    values = np.arange(256, dtype=np.float64)
    with pytest.raises(Failed) as caught:
        same_under_every_schedule(lambda *plan: shim.planted(values, "race", *plan))
    assert str(caught.value) == (
        "result 0 has other bits under the schedule backward with seed 0 than under forward: a barrier is "
        "missing, or threads write to one place"
    )


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    target = tmp_path_factory.mktemp("sanitized") / "kernels"
    try:
        compile_source(SOURCES / "testing" / "sanitize.cpp", target, SANITIZERS, [SOURCES])
    except CompileError as error:
        if "asan" in str(error) or "ubsan" in str(error):
            pytest.skip("the compiler has no sanitizers")
        raise
    return target


def test_no_kernel_leaves_its_buffers(sanitized):
    done = subprocess.run([sanitized], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_read_outside_a_buffer_is_found(sanitized):
    done = subprocess.run([sanitized, "out-of-bounds"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "PlantedKernel" in done.stderr
