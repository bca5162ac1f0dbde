"""CUDA kernels' source, run on the CPU: lanes are fibers, and schedules show what an ordering would hide.

A kernel is a struct with a call operator over the words of `<basereward/kernels/simt.h>`. A test compiles a
pybind11 module that launches it with `<basereward/testing/arrays.h>`, and requires the same bits under every
schedule:

    module = compile_module(Path("csrc/testing/module.cpp"), directory, include_dirs=["csrc"])
    (rewards,) = same_under_every_schedule(lambda *plan: module.run(as_array(values), *plan))
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from basereward.extension import include_dir
from basereward.testing.subject import require

COMPILER: Final = shutil.which("c++") or shutil.which("g++")

SCHEDULES: Final = (("forward", 0), ("backward", 0), ("random", 1), ("greedy", 1), ("greedy", 2))
"""In lock step forward, backward and at random; and each warp as far as it comes. With the seed of each."""

SANITIZERS: Final = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
"""Flags that end a program which leaves its buffers."""


class CompileError(Exception):
    """A source that doesn't compile, with the compiler's output."""


def compile_source(
    source: Path, target: Path, flags: Sequence[str] = (), include_dirs: Iterable[Path | str] = ()
) -> None:
    """Compile a C++ file that runs kernels on the CPU, and link it.

    Args:
        source: The file.
        target: What to write; a program, unless the flags say `-shared`.
        flags: More flags.
        include_dirs: Where its own headers are looked for; those of `basereward.extension` are actual.

    Raises:
        CompileError: With what the compiler prints.
    """
    paths = [f"-I{path}" for path in (*include_dirs, include_dir())]
    command = [COMPILER or "c++", "-std=c++17", *flags, *paths, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)


def compile_module(source: Path, directory: Path, include_dirs: Iterable[Path | str] = ()) -> Any:
    """Compile a pybind11 module that runs kernels on the CPU, and import it under its file's name.

    Needs pybind11: `pip install pybind11`.

    Args:
        source: The file `NAME.cpp`, which says `PYBIND11_MODULE(NAME, module)`.
        directory: Where to put it.
        include_dirs: Where its own headers are looked for; those of torch, which need no library, are actual.

    Raises:
        CompileError: With what the compiler prints.
    """
    import pybind11
    from torch.utils.cpp_extension import include_paths

    name = source.stem
    target = directory / f"{name}.so"
    paths = [*include_dirs, pybind11.get_include(), sysconfig.get_path("include"), *include_paths()]
    compile_source(source, target, ("-O1", "-fPIC", "-shared", "-fvisibility=hidden"), paths)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_under_every_schedule(call: Callable[[str, int], Any]) -> list[Tensor]:
    """Run a kernel under each schedule, and return its results.

    Args:
        call: Takes a schedule and its seed, and returns an array or a tuple of arrays.

    Raises:
        Failed: When a schedule gives other bits than the first one, as it does where a barrier is missing.
    """
    import numpy as np

    results: list[list[Any]] = []
    for schedule in SCHEDULES:
        actual = call(*schedule)
        results.append([np.asarray(part) for part in (actual if isinstance(actual, tuple) else (actual,))])
    for schedule, other in zip(SCHEDULES, results, strict=True):
        for number, (one, two) in enumerate(zip(results[0], other, strict=True)):
            require(
                one.tobytes() == two.tobytes(),
                f"result {number} has other bits under the schedule {schedule[0]} with seed {schedule[1]} "
                f"than under {SCHEDULES[0][0]}: a barrier is missing, or threads write to one place",
            )
    return [torch.from_numpy(part) for part in results[0]]


def as_array(tensor: Tensor | None) -> Any:
    """Return a tensor in the form that the compiled module takes: two-byte floats as their bits."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype.itemsize == 2 else tensor).numpy()


def as_floats(actual: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return results of which bits are floats of a dtype again."""
    return [part.view(dtype) if part.dtype == torch.uint16 else part for part in actual]
