"""The compiled op equals its twin, in value and gradient, and torch knows all it must of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from basereward_example_op.ops import gated_reward, library, reference
from torch import Tensor
from torch.testing import assert_close

from basereward.ops import plain_kernels

STATUS = library.status()["cpu"]
compiled = pytest.mark.skipif(STATUS["kernels"] != "cpp", reason=STATUS["reason"])
SIZES = [(0, 4), (1, 1), (3, 31), (5, 512), (9, 1300)]


def inputs(size: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    """Gate, up and weight, with gradients."""
    generator = torch.Generator().manual_seed(size[1])
    shapes = (size, size, size[1:])
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_op_is_compiled_where_there_is_a_compiler() -> None:
    assert STATUS["reason"] == "BASEREWARD_KERNELS=auto, and basereward_example_op._C is there"


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_op_equals_its_twin(size: tuple[int, int], dtype: torch.dtype) -> None:
    given = inputs(size, dtype)
    upstream = torch.linspace(-1, 2, size[0])
    rewards = gated_reward(*given)
    grads = torch.autograd.grad((rewards * upstream).sum(), given)
    exact = [part.detach().double().requires_grad_() for part in given]
    wanted = reference(*exact)
    wanted_grads = torch.autograd.grad((wanted * upstream).sum(), exact)
    assert rewards.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 1e-2)
    assert_close(rewards.double(), wanted, rtol=tolerance, atol=tolerance)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert grad.dtype == dtype
        assert_close(grad.double(), wanted_grad, rtol=tolerance, atol=tolerance)


@compiled
def test_any_strides_give_the_same() -> None:
    gate, up, weight = (part.detach() for part in inputs((6, 40), torch.float32))
    expected = gated_reward(gate, up, weight)
    strided = weight[:, None].repeat(1, 3)[:, 1]
    turned = gated_reward(gate.t().contiguous().t(), up.repeat_interleave(2, 1)[:, ::2], strided)
    assert torch.equal(turned, expected)


@compiled
def test_the_gradient_is_that_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(gated_reward, inputs((3, 5), torch.float64))


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_torch_finds_nothing_wrong_with_the_registration(dtype: torch.dtype) -> None:
    given = inputs((4, 33), dtype)
    torch.library.opcheck(torch.ops.basereward_example_op.gated_reward.default, given)
    plain = [part.detach() for part in given]
    grad = torch.randn(4, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    # Of a second derivative there is none, so what autograd does with it isn't tried.
    utilities = ("test_schema", "test_faketensor")
    backward = torch.ops.basereward_example_op.gated_reward_backward.default
    torch.library.opcheck(backward, (grad, *plain), test_utils=utilities)


@compiled
def test_a_second_derivative_is_refused() -> None:
    given = inputs((2, 3), torch.float64)
    (grad, *_) = torch.autograd.grad(gated_reward(*given).sum(), given, create_graph=True)
    with pytest.raises(RuntimeError) as caught:
        grad.sum().backward()
    assert str(caught.value) == (
        "the compiled gated_reward has no second derivative; BASEREWARD_KERNELS=torch chooses one that has"
    )
    with plain_kernels() as passed_over:
        assert torch.autograd.gradgradcheck(gated_reward, given)
    assert passed_over == {"basereward_example_op"}


WRONG = [
    (
        lambda g, u, w: (g.long(), u, w),
        TypeError,
        "gate has dtype torch.int64; float64, float32, bfloat16 or float16 is needed",
    ),
    (lambda g, u, w: (g, u.double(), w), TypeError, "up has dtype torch.float64, but gate torch.float32"),
    (lambda g, u, w: (g[0], u, w), ValueError, "gate has shape [4]; [N, H] is needed"),
    (lambda g, u, w: (g, u[:, :3], w), ValueError, "up has shape [3, 3]; [3, 4] is needed"),
    (lambda g, u, w: (g, u, w[None]), ValueError, "weight has shape [1, 4]; [4] is needed"),
    (lambda g, u, w: (g, u, w.to("meta")), ValueError, "weight is on meta, but gate on cpu"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_does_not_fit_is_refused(change, error, message) -> None:
    with pytest.raises(error) as caught:
        gated_reward(*change(*inputs((3, 4), torch.float32)))
    assert str(caught.value) == message


@compiled
def test_a_direct_call_of_the_op_reads_no_memory_that_is_not_there() -> None:
    gate, up, _ = inputs((3, 4), torch.float32)
    with pytest.raises(RuntimeError, match="weight has 3 entries, not 4"):
        torch.ops.basereward_example_op.gated_reward(gate, up, torch.ones(3))


SCRIPT = """
import torch
from basereward_example_op.ops import gated_reward, library
print(library.status()["cpu"]["kernels"], library.status()["cpu"]["reason"], sep=" | ")
print(f"{gated_reward(torch.ones(1, 2), torch.ones(1, 2), torch.ones(2)).item():.4f}")
"""


def run(script: str, choice: str) -> list[str]:
    environment = {**os.environ, "BASEREWARD_KERNELS": choice}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_without_the_library_the_twin_is_used() -> None:
    # 2 silu(1) = 2 / (1 + exp(-1)) = 1.4621.
    assert run(SCRIPT, "torch") == ["torch | BASEREWARD_KERNELS=torch", "1.4621"]
    hidden = "import sys\nsys.modules['basereward_example_op._C'] = None\n"
    first, second = run(hidden + SCRIPT, "auto")
    assert first.startswith("torch | basereward_example_op._C was not built when the package was installed; ")
    assert second == "1.4621"
