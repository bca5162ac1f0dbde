"""The native sources, compiled for aarch64 on another machine: they build, and use its vectors.

Needs Debian's g++-aarch64-linux-gnu. torch's headers are the same for all processors; the libraries, which
are this machine's, are only asked for the names of their functions.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
import torch.utils.cpp_extension

from basereward.extension import compile_flags, include_dir, torch_macros

ROOT = Path(__file__).parents[1]
TOOLS = "aarch64-linux-gnu-"
AARCH64 = 183
"""EM_AARCH64 of the header of an ELF file, at its bytes 18 and 19."""

pytestmark = [
    pytest.mark.external,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which(f"{TOOLS}g++") is None, reason="there is no g++-aarch64-linux-gnu"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs a source checkout"),
]


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def linked(library: Path, sources: list[Path], include: list[str], *flags: str) -> Path:
    """Compile and link sources for aarch64; torch's functions stay open, as in the library of a wheel."""
    subprocess.run(
        [
            f"{TOOLS}g++",
            *compile_flags(),
            "-fPIC",
            "-shared",
            *flags,
            *(f"-I{path}" for path in include),
            *map(str, sources),
            "-o",
            str(library),
        ],
        check=True,
    )
    assert int.from_bytes(library.read_bytes()[18:20], "little") == AARCH64
    return library


def test_the_ops_build_for_aarch64_of_torch_s_stable_functions(tmp_path: Path) -> None:
    macros = [f"-D{name}={value}" for name, value in torch_macros().items()]
    headers = [sysconfig.get_path("include"), *torch.utils.cpp_extension.include_paths()]
    include = [str(ROOT / "csrc"), str(include_dir()), *headers]
    sources = sorted([*(ROOT / "csrc").glob("*.cpp"), *(ROOT / "csrc" / "cpu").glob("*.cpp")])
    library = linked(tmp_path / "_C.abi3.so", sources, include, *macros)

    symbols = output_of(f"{TOOLS}nm", "-D", "--undefined-only", str(library))
    wanted = set(re.findall(r" U ((?:aoti_torch|torch)_\w+)", symbols))
    assert wanted
    torch_library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    assert wanted <= set(
        output_of("nm", "-D", "--defined-only", "--format=just-symbols", str(torch_library)).split()
    )
    # Products and sums of four floats at once: the loops over rows are vector code there too.
    assert re.search(r"\bfm(?:la|ul)\s+v\d+\.4s", output_of(f"{TOOLS}objdump", "-d", str(library)))


def test_the_host_s_helpers_build_for_aarch64(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    include = [str(ROOT / "csrc"), sysconfig.get_path("include"), pybind11.get_include()]
    library = linked(tmp_path / "_host.so", [ROOT / "csrc" / "host" / "module.cpp"], include)
    assert "PyInit__host" in output_of(f"{TOOLS}nm", "-D", "--defined-only", str(library))
