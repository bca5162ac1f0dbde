"""The CUDA kernels without a GPU: run on the CPU under every schedule, and compiled by nvcc where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from basereward_example_op.ops import reference
from torch.testing import assert_close
from torch.utils.cpp_extension import include_paths

from basereward.extension import torch_macros
from basereward.testing.native.nvcc import ARCHITECTURES, MOST_REGISTERS, NVCC, usage_of
from basereward.testing.native.simt import (
    COMPILER,
    as_array,
    as_floats,
    compile_module,
    same_under_every_schedule,
)

CSRC = Path(__file__).parents[1] / "csrc"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory):
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    pytest.importorskip("pybind11")
    source = CSRC / "testing" / "gated_reward_shim.cpp"
    return compile_module(source, tmp_path_factory.mktemp("shim"), [CSRC])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 31), (2, 257), (5, 700)], ids=str)
def test_the_kernels_equal_the_twin_under_every_schedule(shim, size: tuple[int, int], dtype: str) -> None:
    kernels, dtype = getattr(shim, dtype), getattr(torch, dtype)
    generator = torch.Generator().manual_seed(size[1])
    shapes = (size, size, size[1:])
    given = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    upstream = torch.linspace(-1, 2, size[0]).to(torch.float64 if dtype == torch.float64 else torch.float32)
    arrays = [as_array(part) for part in given]
    (rewards,) = same_under_every_schedule(lambda *plan: kernels.reward(*arrays, *plan))
    found = same_under_every_schedule(lambda *plan: kernels.gradient(as_array(upstream), *arrays, *plan))
    exact = [part.double().requires_grad_() for part in given]
    wanted = reference(*exact)
    wanted_grads = torch.autograd.grad((wanted * upstream).sum(), exact)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 1e-2)
    assert_close(rewards.double(), wanted.detach(), rtol=tolerance, atol=tolerance)
    for grad, wanted_grad in zip(as_floats(found, dtype), wanted_grads, strict=True):
        assert_close(grad.double(), wanted_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
def test_the_launches_compile_and_no_kernel_exceeds_its_budget(tmp_path: Path) -> None:
    # torch's CPU build has the headers of the stable interface too.
    flags = ["-DUSE_CUDA", *(f"-D{name}={value}" for name, value in torch_macros().items())]
    found = usage_of(CSRC / "cuda" / "gated_reward.cu", tmp_path, flags, [CSRC, *include_paths()])
    # Two kernels in four types each.
    assert len(found) == 2 * 4 * len(ARCHITECTURES)
    assert [usage for usage in found if usage.local_bytes or usage.registers > MOST_REGISTERS] == []
