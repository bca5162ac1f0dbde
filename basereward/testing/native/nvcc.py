"""Registers and memory of kernels on every architecture, as nvcc reports them without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from basereward.extension import include_dir
from basereward.testing.native.simt import CompileError

NVCC: Final = shutil.which("nvcc")
ARCHITECTURES: Final = (80, 90, 100)
MOST_REGISTERS: Final = 80
"""With which three blocks of 256 threads fit a multiprocessor, as `<basereward/kernels/simt.h>` asks for."""

_RECORD = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)a?'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Usage:
    """The registers and memory of one kernel on one architecture.

    Attributes:
        name: The kernel's, mangled.
        architecture: Such as 90.
        registers: Of a thread.
        local_bytes: Of a thread: its stack, and registers that were spilled to it.
    """

    name: str
    architecture: int
    registers: int
    local_bytes: int


def compile_cuda(
    source: Path, target: Path, flags: Sequence[str] = (), include_dirs: Iterable[Path | str] = ()
) -> str:
    """Compile a CUDA file to an object, and return what nvcc prints.

    Args:
        source: The file.
        target: The object.
        flags: More flags.
        include_dirs: Where its own headers are looked for; those of `basereward.extension` are actual.

    Raises:
        CompileError: With what nvcc prints.
    """
    paths = [f"-I{path}" for path in (*include_dirs, include_dir())]
    command = [NVCC or "nvcc", "-std=c++17", "-O3", *flags, *paths, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stderr + done.stdout


def usage_of(
    source: Path,
    directory: Path,
    flags: Sequence[str] = (),
    include_dirs: Iterable[Path | str] = (),
    architectures: Sequence[int] = ARCHITECTURES,
) -> list[Usage]:
    """Compile a CUDA file for some architectures, and return the use of each of its kernels on each.

    Raises:
        CompileError: With what nvcc prints.
    """
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    target = directory / f"{source.stem}.o"
    printed = compile_cuda(source, target, ("-Xptxas=-v", *codes, *flags), include_dirs)
    records = [match.groupdict() for match in _RECORD.finditer(printed)]
    return [
        Usage(
            name=record["name"],
            architecture=int(record["architecture"]),
            registers=int(record["registers"]),
            local_bytes=int(record["stack"]) + int(record["stores"]) + int(record["loads"]),
        )
        for record in records
    ]
