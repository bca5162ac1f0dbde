"""The CUDA sources compile for every architecture we build for, within budgets of registers and memory."""

from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

from basereward.extension import torch_macros
from basereward.testing.native.nvcc import ARCHITECTURES, MOST_REGISTERS, NVCC, compile_cuda, usage_of

CSRC = Path(__file__).parents[3] / "csrc"

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="there is no nvcc"),
    pytest.mark.timeout(300),
]


@pytest.mark.external
def test_no_kernel_needs_local_memory_or_more_registers_than_its_budget(tmp_path):
    source = CSRC / "testing" / "instantiate.cu"
    found = usage_of(source, tmp_path, include_dirs=[CSRC])
    assert len(found) == source.read_text().count("\nINSTANTIATE(") * len(ARCHITECTURES)
    assert [usage for usage in found if usage.local_bytes or usage.registers > MOST_REGISTERS] == []


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(path.name for path in (CSRC / "cuda").glob("*.cu")))
def test_the_launches_compile_against_torch(source, tmp_path):
    # torch's CPU build has the headers of the stable interface too.
    macros = [f"-D{name}={value}" for name, value in torch_macros().items()]
    flags = ("-DUSE_CUDA", "--gpu-architecture=sm_90", *macros)
    compile_cuda(CSRC / "cuda" / source, tmp_path / "launch.o", flags, [CSRC, *include_paths()])
    assert (tmp_path / "launch.o").stat().st_size > 0
