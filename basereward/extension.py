"""Build native ops into a distribution: what BaseReward's own setup.py does, for that of a plugin too.

    from setuptools import setup

    from basereward.extension import native_ops

    setup(**native_ops("my_package"))

builds `my_package._C` of the C++ files in `csrc/` and `csrc/cpu/`, and, with CUDA, `my_package._C_cuda` of
those in `csrc/cuda/`; `basereward.ops.Library` finds both. They use the stable interface of libtorch, so that
one library serves every later torch and Python. Headers are found in `csrc/` and, as
`<basereward/tensors.h>`, in `include_dir()`.

Environment, all optional:
    BASEREWARD_BUILD_EXT   auto (default): build if possible; 0: never; 1: fail where it is not possible
    BASEREWARD_BUILD_CUDA  the same for the CUDA kernels; FORCE_CUDA=1 means 1
    TORCH_CUDA_ARCH_LIST   architectures, such as "8.0;9.0+PTX"; by default those of the GPUs found, or
                           all that nvcc knows from 8.0 on
    MAX_JOBS               parallel compilers; by default as many as processors and free memory allow
    DEBUG                  1: no optimization, debug symbols, assertions on

Where an extension can't be built it is left out, and the build prints why, and what to do. pip hides that,
so the reasons are also written to `_build.json` in the package, which `left_out` reads. Nothing but the
standard library is imported here, since reading metadata needs no more.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["NotPossible", "compile_flags", "include_dir", "left_out", "native_ops", "torch_macros"]

# The oldest torch whose stable ABI a library asks for; it runs under that and every later one.
TORCH_TARGET: Final = (2, 10)
TORCH_TARGET_NAME: Final = ".".join(map(str, TORCH_TARGET))
PYTHON_TARGET: Final = (3, 11)
BYTES_PER_JOB: Final = 3 << 29  # 1.5 GiB: what a compiler of these small files can take, with margin.
COMPILERS: Final = ("c++", "g++", "clang++")
RECORD: Final = "_build.json"
"""The file of the reasons why extensions were left out, in the package that they would be in."""

COMMANDS: Final = frozenset({"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"})
"""Those that build; reading metadata and writing a source distribution need neither torch nor a compiler."""


class NotPossible(Exception):
    """Why an extension can't be built here, and what would change that."""


def include_dir() -> Path:
    """Return the directory of the headers, included as `<basereward/tensors.h>`."""
    return Path(__file__).parent / "include"


def left_out(package: Path) -> dict[str, str]:
    """Return the extensions that a build has left out, by name, with the reasons; none if it isn't known.

    Args:
        package: The package's directory.
    """
    try:
        record = json.loads((package / RECORD).read_text(encoding="utf-8"))
        return {str(name): str(reason) for name, reason in record["left_out"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def torch_macros() -> dict[str, str]:
    """Return the macros that hold a library to the stable ABI."""
    return {"TORCH_TARGET_VERSION": f"0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000"}


def compile_flags() -> list[str]:
    """Return the flags of C++ files."""
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


def native_ops(package: str, more: Mapping[str, Callable[[], Any]] | None = None) -> dict[str, Any]:
    """Return the arguments of `setup` that build a package's ops; none where they can't or shan't be built.

    Args:
        package: What the libraries go into, `package._C` and `package._C_cuda`; the ops' namespace, too.
        more: Other extensions by their names; a function may raise `NotPossible`.

    Raises:
        SystemExit: When the environment asks for what is not possible, or can't be understood.
    """
    if not COMMANDS & set(sys.argv):
        return {}
    choice = _wanted(package, "BASEREWARD_BUILD_EXT")
    for_cuda = "1" if _wanted(package, "FORCE_CUDA") == "1" else _wanted(package, "BASEREWARD_BUILD_CUDA")
    if choice == "0" and for_cuda == "1":
        raise SystemExit(f"{package}: CUDA kernels are asked for, but BASEREWARD_BUILD_EXT=0; unset it")
    if choice == "0":
        _say(package, "pure Python, since BASEREWARD_BUILD_EXT=0; unset it to build the native ops")
        return {}
    try:
        torch = _usable_torch()
        _compiler()
    except NotPossible as error:
        if "1" in (choice, for_cuda):
            which = "BASEREWARD_BUILD_EXT" if choice == "1" else "BASEREWARD_BUILD_CUDA"
            raise SystemExit(f"{package}: {which}=1, but {error}") from error
        _say(package, f"pure Python, without the native ops: {error}")
        return {"cmdclass": {"build_py": _recording_command(package, str(error))}}
    _set_max_jobs()
    reasons: dict[str, str] = {}
    extensions = [_cpu_extension(package, torch)]
    for name, make in (more or {}).items():
        try:
            extensions.append(make())
        except NotPossible as error:
            _say(package, f"without {name}: {error}")
            reasons[name] = str(error)
    extensions += _cuda_extensions(package, for_cuda, torch, reasons)
    forced = {
        ext.name for ext in extensions if choice == "1" or (for_cuda == "1" and ext.name.endswith("_cuda"))
    }
    for extension in extensions:
        extension.optional = extension.name not in forced
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": _build_command(package, torch, forced, reasons)},
        "options": {"bdist_wheel": {"py_limited_api": f"cp{PYTHON_TARGET[0]}{PYTHON_TARGET[1]}"}},
    }


def _say(package: str, message: str) -> None:
    """Print one line of the build's decisions; pip shows them with -v."""
    print(f"{package}: {message}", file=sys.stderr, flush=True)


def _wanted(package: str, variable: str) -> str:
    """Return what the environment asks for: auto, 0 or 1."""
    value = os.environ.get(variable, "auto").strip().lower() or "auto"
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{package}: {variable}={value} is not understood; write auto, 0 or 1")
    return value


def _usable_torch() -> Any:
    """Import the torch to build against."""
    if importlib.util.find_spec("torch") is None:
        # pip hides the environment's packages from a build, but builds with the environment's Python. Its
        # torch is that of the run time; another one, of gigabytes, would be fetched for the build alone.
        sys.path += [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    try:
        import torch.utils.cpp_extension
    except Exception as error:
        raise NotPossible(
            f"torch can't be imported ({type(error).__name__}: {error}); install it, then this package again "
            "(with --no-build-isolation, where not pip builds)"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < TORCH_TARGET:
        raise NotPossible(
            f"torch {torch.__version__} is older than {TORCH_TARGET_NAME}; upgrade torch and build again"
        )
    return torch


def _compiler() -> str:
    """Return the C++ compiler's command."""
    given = os.environ.get("CXX")
    names = [given] if given else COMPILERS
    name = next((name for name in names if shutil.which(name.split()[0])), None)
    if name is None:
        wanted = given or "c++"
        raise NotPossible(
            f"there is no C++ compiler {wanted!r}; install g++ or clang++, or name yours in CXX"
        )
    if not given and name != COMPILERS[0]:
        os.environ["CXX"] = name  # which torch and setuptools read
    return name


def _set_max_jobs() -> None:
    """Bound parallel compilers by processors and free memory, unless the user did."""
    if "MAX_JOBS" in os.environ or not hasattr(os, "sysconf"):
        return
    try:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return
    os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, free_bytes // BYTES_PER_JOB)))


def _sources(*patterns: str) -> list[str]:
    """Return files of the project in a stable order, relative to where setup.py runs."""
    return sorted(path.as_posix() for pattern in patterns for path in Path().glob(pattern))


def _common() -> dict[str, Any]:
    """Return what extensions for the CPU and for CUDA have in common."""
    headers = [path for suffix in ("h", "cuh") for path in include_dir().rglob(f"*.{suffix}")]
    return {
        "include_dirs": [str(Path("csrc").resolve()), str(include_dir())],
        # A change of these makes a build stale.
        "depends": [*_sources("csrc/**/*.h", "csrc/**/*.cuh"), *sorted(map(str, headers))],
        "define_macros": list(torch_macros().items()),
        "py_limited_api": True,
    }


def _cpu_extension(package: str, torch: Any) -> Any:
    """Return `package._C`: the schemas of all ops and their CPU kernels."""
    return torch.utils.cpp_extension.CppExtension(
        f"{package}._C",
        _sources("csrc/*.cpp", "csrc/cpu/*.cpp"),
        extra_compile_args=compile_flags(),
        **_common(),
    )


def _cuda_extensions(package: str, choice: str, torch: Any, reasons: dict[str, str]) -> list[Any]:
    """Return `package._C_cuda`, apart because it needs torch's CUDA; where it can't be, print why.

    Where torch is built with CUDA, so that somebody may miss them, the reason is added to `reasons`.
    """
    sources = _sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu")
    if not sources:
        return []
    if choice == "0":
        _say(package, "without CUDA kernels, since BASEREWARD_BUILD_CUDA=0")
        return []
    try:
        toolkit = _cuda_toolkit(torch)
    except NotPossible as error:
        if choice == "1":
            raise SystemExit(f"{package}: BASEREWARD_BUILD_CUDA=1, but {error}") from error
        _say(package, f"without CUDA kernels: {error}")
        if torch.version.cuda is not None:
            reasons[f"{package}._C_cuda"] = str(error)
        return []
    os.environ["TORCH_CUDA_ARCH_LIST"] = _architectures(torch, toolkit)
    _say(package, f"CUDA kernels for {os.environ['TORCH_CUDA_ARCH_LIST']}, with the toolkit in {toolkit}")
    debug = ["-G"] if os.environ.get("DEBUG", "0") == "1" else []
    common = _common()
    common["define_macros"].append(("USE_CUDA", None))
    return [
        torch.utils.cpp_extension.CUDAExtension(
            f"{package}._C_cuda",
            sources,
            library_dirs=_cuda_libraries(toolkit),
            extra_compile_args={"cxx": compile_flags(), "nvcc": ["-O3", "-std=c++17", *debug]},
            **common,
        )
    ]


def _cuda_toolkit(torch: Any) -> str:
    """Return the toolkit's directory, whose nvcc is of the version that torch is built for."""
    if torch.version.cuda is None:
        raise NotPossible(
            f"torch {torch.__version__} is built without CUDA; install one that is built with it"
        )
    toolkit = torch.utils.cpp_extension.CUDA_HOME
    if toolkit is None or not (Path(toolkit) / "bin/nvcc").exists():
        raise NotPossible("there is no nvcc; install the CUDA toolkit, and name its directory in CUDA_HOME")
    printed = _printed(f"{toolkit}/bin/nvcc", "--version").stdout
    version = printed.partition("release ")[2].partition(",")[0]
    if version.partition(".")[0] != torch.version.cuda.partition(".")[0]:
        raise NotPossible(
            f"nvcc is of CUDA {version}, but torch of {torch.version.cuda}; install a toolkit of that version"
        )
    return str(toolkit)


def _architectures(torch: Any, toolkit: str) -> str:
    """Return what to compile for, as TORCH_CUDA_ARCH_LIST has it; the newest as PTX too, for later GPUs."""
    if given := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return given
    architectures = {torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count())}
    if not architectures:
        listed = _printed(f"{toolkit}/bin/nvcc", "--list-gpu-arch").stdout.split()
        wanted = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
        architectures = {arch for arch in wanted if f"compute_{arch[0]}{arch[1]}" in listed}
    return ";".join(f"{major}.{minor}" for major, minor in sorted(architectures)) + "+PTX"


def _cuda_libraries(toolkit: str) -> list[str]:
    """Return where the CUDA runtime may lie: beside the nvcc that runs; the toolkit's may only call it."""
    printed = _printed(f"{toolkit}/bin/nvcc", "--dryrun", "none.cu").stderr
    top = printed.partition(" TOP=")[2].partition("\n")[0]
    directories = [Path(top or toolkit).resolve() / name for name in ("lib64", "lib")]
    return [str(path) for path in directories if path.is_dir()]


def _printed(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _build_info(torch: Any, ext: Any) -> dict[str, Any]:
    """Return what a bug report needs to know about a library."""
    version = _printed(*_compiler().split(), "--version")
    head = _printed("git", "rev-parse", "HEAD")  # of the sources, which are built where they lie
    return {
        "torch": torch.__version__,
        "torch_target": TORCH_TARGET_NAME,
        "python": ".".join(map(str, sys.version_info[:3])),
        "compiler": (version.stdout.splitlines() or [_compiler()])[0],
        "flags": compile_flags(),
        "sources": ext.sources,
        "commit": head.stdout.strip() if head.returncode == 0 else "",
        **(
            {"cuda": torch.version.cuda, "architectures": os.environ["TORCH_CUDA_ARCH_LIST"]}
            if ext.name.endswith("_cuda")
            else {}
        ),
    }


def _write_record(directory: Path, reasons: Mapping[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"left_out": dict(reasons)}, indent=2) + "\n"
    (directory / RECORD).write_text(text, encoding="utf-8")


def _recording_command(package: str, reason: str) -> type:
    """Return the build_py command of a package without native ops, which records the reason."""
    from setuptools.command.build_py import build_py

    class BuildPy(build_py):  # type: ignore[misc]
        """Copy the Python files, and write why there are no libraries beside them."""

        def run(self) -> None:
            super().run()
            place = Path(package.replace(".", "/"))
            in_place = getattr(self, "editable_mode", False)
            _write_record(place if in_place else Path(self.build_lib) / place, {"the native ops": reason})

    return BuildPy


def _build_command(package: str, torch: Any, forced: set[str], reasons: dict[str, str]) -> type:
    """Return the build_ext command that leaves out, with a reason, an extension that fails to compile.

    Args:
        package: Whose name messages begin with.
        torch: What is built against.
        forced: Names of extensions whose failure is an error.
        reasons: Why others were left out already.
    """

    class BuildOps(torch.utils.cpp_extension.BuildExtension):  # type: ignore[misc]
        """Compile the ops and write `NAME.json` beside each library."""

        def build_extension(self, ext: Any) -> None:
            try:
                super().build_extension(ext)
            except Exception as error:
                if ext.name in forced:
                    raise
                failed = f"compiling it failed: {str(error).splitlines()[0]}"
                _say(
                    package,
                    f"{ext.name} was left out, since {failed}. "
                    "The package works without it; BASEREWARD_BUILD_EXT=1 makes this an error that says more",
                )
                reasons[ext.name] = failed

        def run(self) -> None:
            super().run()
            built = [ext for ext in self.extensions if Path(self.get_ext_fullpath(ext.name)).exists()]
            for ext in built:
                library = Path(self.get_ext_fullpath(ext.name))
                info = library.with_name(ext.name.rpartition(".")[2] + ".json")
                info.write_text(json.dumps(_build_info(torch, ext), indent=2) + "\n", encoding="utf-8")
                _say(
                    package, f"built {library.name} with torch {torch.__version__} for >= {TORCH_TARGET_NAME}"
                )
            directory = Path(self.get_ext_fullpath(f"{package}._C")).parent
            for ext in self.extensions:
                if ext not in built:
                    reasons.setdefault(ext.name, "compiling it failed")
            _write_record(directory, reasons)
            if not built:
                # Nothing in the wheel depends on the platform, so its name must not say so.
                self.get_finalized_command("bdist_wheel").root_is_pure = True

    return BuildOps
