"""Build the native ops where a compiler and torch are at hand; everything else stands in pyproject.toml.

Environment, all optional:
    BASEREWARD_BUILD_EXT  auto (default): build if possible; 0: never; 1: fail where it is not possible
    MAX_JOBS              parallel compilers; by default as many as processors and free memory allow
    DEBUG                 1: no optimisation, debug symbols, assertions on

Without the extension the package works through its plain-torch ops. A build that ends so prints why, and what
to do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).parent.resolve()
# The oldest torch whose stable ABI the library asks for; it runs under that and every later one.
TORCH_TARGET = (2, 10)
TORCH_TARGET_NAME = ".".join(map(str, TORCH_TARGET))
PYTHON_TARGET = (3, 11)
BYTES_PER_JOB = 3 << 29  # 1.5 GiB: what a compiler of these small files can take, with margin.


class NotPossible(Exception):
    """Why the extension can't be built here, and what would change that."""


def say(message: str) -> None:
    """Print one line of the build's decisions; pip shows them with -v."""
    print(f"basereward: {message}", file=sys.stderr, flush=True)


def wanted(variable: str) -> str:
    """Return what the environment asks for: auto, 0 or 1."""
    value = os.environ.get(variable, "auto").strip().lower() or "auto"
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"basereward: {variable}={value} is not understood; write auto, 0 or 1")
    return value


def usable_torch() -> Any:
    """Import the torch to build against."""
    try:
        import torch
    except Exception as error:
        raise NotPossible(
            f"torch can't be imported ({type(error).__name__}: {error}); install it first, then build with "
            "--no-build-isolation"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < TORCH_TARGET:
        raise NotPossible(
            f"torch {torch.__version__} is older than {TORCH_TARGET_NAME}; upgrade torch and build again"
        )
    return torch


def compiler() -> str:
    """Return the C++ compiler's command."""
    name = os.environ.get("CXX") or "c++"
    if shutil.which(name.split()[0]) is None:
        raise NotPossible(f"there is no C++ compiler {name!r}; install g++ or clang++, or name yours in CXX")
    return name


def set_max_jobs() -> None:
    """Bound parallel compilers by processors and free memory, unless the user did."""
    if "MAX_JOBS" in os.environ or not hasattr(os, "sysconf"):
        return
    try:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return
    os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, free_bytes // BYTES_PER_JOB)))


def compile_flags() -> list[str]:
    """Return the flags of the C++ files."""
    if os.name == "nt":
        return ["/O2", "/std:c++17"]
    debug = os.environ.get("DEBUG", "0") == "1"
    return [
        *(["-O0", "-g"] if debug else ["-O3", "-DNDEBUG"]),
        "-std=c++17",
        "-fvisibility=hidden",
        # A loop over exp and log only becomes vector code when errno and traps don't have to be kept.
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fopenmp-simd",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",  # torch's headers have some
    ]


def headers() -> list[str]:
    """Return the files whose change makes a build stale."""
    found = (path for suffix in ("*.h", "*.cuh") for path in (ROOT / "csrc").rglob(suffix))
    return sorted(str(path.relative_to(ROOT)) for path in found)


def tensor_ops() -> Any:
    """Return `basereward._C`: the schemas of all ops and their CPU kernels."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "basereward._C",
        ["csrc/library.cpp", *sorted(f"csrc/cpu/{path.name}" for path in (ROOT / "csrc/cpu").glob("*.cpp"))],
        include_dirs=[str(ROOT / "csrc")],
        depends=headers(),
        define_macros=[("TORCH_TARGET_VERSION", f"0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000")],
        extra_compile_args=compile_flags(),
        py_limited_api=True,
    )


def build_info(torch: Any, sources: list[str]) -> dict[str, Any]:
    """Return what a bug report needs to know about a library."""
    version = subprocess.run([*compiler().split(), "--version"], capture_output=True, text=True, check=False)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT)
    return {
        "torch": torch.__version__,
        "torch_target": TORCH_TARGET_NAME,
        "python": ".".join(map(str, sys.version_info[:3])),
        "compiler": (version.stdout.splitlines() or [compiler()])[0],
        "flags": compile_flags(),
        "sources": sources,
        "commit": head.stdout.strip() if head.returncode == 0 else "",
    }


def build_command(torch: Any, *, forced: bool) -> type:
    """Return the build_ext command that leaves out, with a reason, an extension that fails to compile."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildOps(BuildExtension):
        """Compile the ops and write `_C.json` beside each library."""

        def build_extension(self, ext: Any) -> None:
            try:
                super().build_extension(ext)
            except Exception as error:
                if forced:
                    raise
                say(
                    f"{ext.name} was left out, since compiling it failed: {str(error).splitlines()[0]}. "
                    "The package works without it; BASEREWARD_BUILD_EXT=1 makes this an error that says more"
                )
                # Nothing in the wheel depends on the platform any more, so its name must not say so.
                self.get_finalized_command("bdist_wheel").root_is_pure = True

        def run(self) -> None:
            super().run()
            for ext in self.extensions:
                library = Path(self.get_ext_fullpath(ext.name))
                if library.exists():
                    info = library.with_name(ext.name.rpartition(".")[2] + ".json")
                    text = json.dumps(build_info(torch, ext.sources), indent=2)
                    info.write_text(text + "\n", encoding="utf-8")
                    say(f"built {library.name} with torch {torch.__version__} for >= {TORCH_TARGET_NAME}")

    return BuildOps


def native() -> dict[str, Any]:
    """Return the arguments of `setup` that build the extensions; none where they can't or shan't be built."""
    choice = wanted("BASEREWARD_BUILD_EXT")
    if choice == "0":
        say("pure Python, since BASEREWARD_BUILD_EXT=0; unset it to build the native ops")
        return {}
    try:
        torch = usable_torch()
        compiler()
    except NotPossible as error:
        if choice == "1":
            raise SystemExit(f"basereward: BASEREWARD_BUILD_EXT=1, but {error}") from error
        say(f"pure Python, without the native ops: {error}")
        return {}
    set_max_jobs()
    extensions = [tensor_ops()]
    for extension in extensions:
        extension.optional = choice != "1"
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": build_command(torch, forced=choice == "1")},
        "options": {"bdist_wheel": {"py_limited_api": f"cp{PYTHON_TARGET[0]}{PYTHON_TARGET[1]}"}},
    }


# Reading metadata and writing a source distribution need neither torch nor a compiler.
BUILDS = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
setup(**(native() if BUILDS & set(sys.argv) else {}))
