"""The CUDA sources compile for every architecture we build for, within budgets of registers and memory."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

CSRC = Path(__file__).parents[2] / "csrc"
NVCC = shutil.which("nvcc")
ARCHITECTURES = (80, 90, 100)
MOST_REGISTERS = 80  # three blocks of 256 threads fit a multiprocessor

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="there is no nvcc"),
    pytest.mark.timeout(300),
]

RECORD = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)a?'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def compile_source(source, target, *flags):
    command = [NVCC, "-std=c++17", "-O3", f"-I{CSRC}", *flags, "-c", CSRC / source, "-o", target]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def test_no_kernel_needs_local_memory_or_more_registers_than_its_budget(tmp_path):
    architectures = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    printed = compile_source("testing/instantiate.cu", tmp_path / "kernels.o", "-Xptxas=-v", *architectures)
    records = [match.groupdict() for match in RECORD.finditer(printed)]
    num_kernels = (CSRC / "testing" / "instantiate.cu").read_text().count("\nINSTANTIATE(")
    assert len(records) == num_kernels * len(ARCHITECTURES)
    for record in records:
        assert (record["stack"], record["stores"], record["loads"]) == ("0", "0", "0"), record
        assert int(record["registers"]) <= MOST_REGISTERS, record


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(path.name for path in (CSRC / "cuda").glob("*.cu")))
def test_the_launches_compile_against_torch(source, tmp_path):
    # torch's CPU build has the headers of the stable interface too.
    includes = [f"-I{path}" for path in include_paths()]
    flags = ("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", "--gpu-architecture=sm_90")
    compile_source(f"cuda/{source}", tmp_path / "launch.o", *includes, *flags)
    assert (tmp_path / "launch.o").stat().st_size > 0
