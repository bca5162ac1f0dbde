from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from clean_installs import trained
from environments import copy_sources

ROOT = Path(__file__).parents[1]
INCLUDE = ROOT / "basereward" / "include"
# What a plugin's native code is compiled with.
HEADERS = {path.relative_to(ROOT).as_posix() for path in INCLUDE.rglob("*") if path.is_file()}
# A torch that can't be imported, as on a machine where it is installed only later.
NO_TORCH = "raise ImportError('no torch here')\n"

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs a source checkout"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the package is built from."""
    return copy_sources(tmp_path / "checkout")


def run(*command: object, cwd: Path, **environment: str) -> tuple[int, str]:
    """Run a command; return its exit status and everything it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def build_wheel(checkout: Path, **environment: str) -> tuple[int, str, list[Path]]:
    """Build a wheel as pip does; return the exit status, what was printed and the wheels."""
    wheels = checkout.parent / "wheels"
    command = ["pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, "."]
    status, printed = run(sys.executable, "-m", *command, cwd=checkout, **environment)
    return status, printed, sorted(wheels.glob("*.whl"))


def lines_of(printed: str) -> list[str]:
    return [line.strip() for line in printed.splitlines() if line.strip().startswith("basereward: ")]


def build_sdist(checkout: Path) -> Path:
    status, printed = run(
        sys.executable, "setup.py", "-q", "sdist", "-d", checkout.parent / "dist", cwd=checkout
    )
    assert status == 0, printed
    (archive,) = (checkout.parent / "dist").glob("*.tar.gz")
    return archive


def test_the_source_distribution_holds_every_native_source(checkout: Path) -> None:
    # Kernels that no extension of this machine lists have to be there too.
    (checkout / "csrc" / "cuda").mkdir(exist_ok=True)
    (checkout / "csrc" / "cuda" / "planted.cu").touch()
    (checkout / "csrc" / "cuda" / "planted.cuh").touch()
    wanted = {
        path.relative_to(checkout).as_posix() for path in (checkout / "csrc").rglob("*") if path.is_file()
    }
    with tarfile.open(build_sdist(checkout)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted |= HEADERS
    assert wanted | {"setup.py", "pyproject.toml", "basereward/py.typed", "constraints.txt"} <= held


def test_metadata_needs_neither_torch_nor_a_compiler(checkout: Path) -> None:
    (checkout.parent / "torch.py").write_text(NO_TORCH)
    status, printed = run(
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        cwd=checkout,
        PYTHONPATH=str(checkout.parent),
        CXX="missing-c++",
    )
    assert status == 0, printed
    assert "Name: basereward\nVersion: 0.1.0\n" in (checkout / "basereward.egg-info" / "PKG-INFO").read_text()


def test_an_old_setuptools_is_one_line(checkout: Path) -> None:
    old = checkout.parent / "old" / "setuptools" / "command"
    old.mkdir(parents=True)
    (old.parent / "__init__.py").write_text('__version__ = "66.1.1"\n')
    (old / "build_py.py").write_text("class build_py: pass\n")
    (old / "__init__.py").touch()
    status, printed = run(
        sys.executable, "setup.py", "egg_info", cwd=checkout, PYTHONPATH=str(checkout.parent / "old")
    )
    assert status == 1
    assert printed == (
        "basereward: setuptools 66.1.1 is too old: run pip install -U 'setuptools>=77', or build without "
        "--no-build-isolation\n"
    )


def test_an_isolated_build_sees_the_torch_of_the_environment(tmp_path: Path) -> None:
    # As pip does it: the environment's packages are taken from the path of the Python that builds.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, sysconfig\n"
        "hidden = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}\n"
        "sys.path = [path for path in sys.path if path not in hidden]\n"
    )
    shutil.copy(ROOT / "basereward" / "extension.py", tmp_path)
    for package in ("setuptools", "packaging"):
        (tmp_path / package).symlink_to(Path(importlib.import_module(package).__file__ or "").parent)
    script = """
import importlib.util
assert importlib.util.find_spec("torch") is None
import extension
print(extension._usable_torch().__version__)
"""
    status, printed = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (status, printed) == (0, f"{torch.__version__}\n")


TORCH_MISSING = (
    "torch can't be imported (ImportError: no torch here); "
    "install it, then this package again (with --no-build-isolation, where not pip builds)"
)
NO_CUDA = f"torch {torch.__version__} is built without CUDA; install one that is built with it"
COMPILER_MISSING = "there is no C++ compiler 'missing-c++'; install g++ or clang++, or name yours in CXX"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"BASEREWARD_BUILD_EXT": "0"},
            "pure Python, since BASEREWARD_BUILD_EXT=0; unset it to build the native ops",
        ),
        ({"CXX": "missing-c++"}, f"pure Python, without the native ops: {COMPILER_MISSING}"),
        ({"PYTHONPATH": "no-torch"}, f"pure Python, without the native ops: {TORCH_MISSING}"),
    ],
    ids=["switched off", "no compiler", "no torch"],
)
def test_without_the_means_the_wheel_is_pure_and_the_reason_printed(
    checkout: Path, environment: dict[str, str], reason: str
) -> None:
    if "PYTHONPATH" in environment:
        environment = {"PYTHONPATH": str(checkout.parent / "no-torch")}
        (checkout.parent / "no-torch").mkdir()
        (checkout.parent / "no-torch" / "torch.py").write_text(NO_TORCH)
    status, printed, wheels = build_wheel(checkout, **environment)
    assert status == 0, printed
    assert lines_of(printed) == [f"basereward: {reason}"]
    assert [wheel.name for wheel in wheels] == ["basereward-0.1.0-py3-none-any.whl"]


def test_the_first_command_after_a_build_without_native_ops_says_so_once(checkout: Path) -> None:
    status, printed, (wheel,) = build_wheel(checkout, CXX="missing-c++")
    assert status == 0, printed
    site = checkout.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    venv.create(checkout.parent / "venv", with_pip=False)
    # By PYTHONPATH, which runs no .pth file, the dependencies are seen and an editable install isn't.
    path = os.pathsep.join([str(site), str(Path(torch.__file__).parents[1])])

    def command(*arguments: str, **environment: str) -> tuple[str, str]:
        done = subprocess.run(
            [str(checkout.parent / "venv" / "bin" / "python"), "-m", "basereward", *arguments],
            cwd=checkout.parent,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "XDG_CACHE_HOME": str(checkout.parent / "cache"),
                "BASEREWARD_DISABLE_PLUGINS": "*",
                **environment,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, done.stderr

    assert command("--version", RANK="1")[1] == ""
    assert command("--version")[1] == (
        f"basereward: the native ops were not built when it was installed: {COMPILER_MISSING}.\n"
        "basereward: all works without, more slowly; `BASEREWARD_BUILD_EXT=1 pip install -v .` in a checkout "
        "builds them, or shows why not. This is said once; `basereward doctor` says it again.\n"
    )
    facts, errors = command("doctor")
    assert errors == ""
    said = " ".join(facts.split())  # long lines are folded
    assert f"basereward._C was not built when the package was installed ({COMPILER_MISSING}); " in said
    _, _, verdict = said.rpartition("works, but more slowly than it could: see the warnings")
    assert verdict.startswith("; not installed: ")
    os.utime(site / "basereward" / "_build.json", (1, 1))  # as another build's
    assert COMPILER_MISSING in command("--version")[1]
    assert command("--version")[1] == ""
    # Where nothing can be remembered, it is said each time.
    (checkout.parent / "file").touch()
    for _ in range(2):
        assert COMPILER_MISSING in command("--version", XDG_CACHE_HOME=str(checkout.parent / "file"))[1]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"BASEREWARD_BUILD_EXT": "1", "CXX": "missing-c++"},
            f"BASEREWARD_BUILD_EXT=1, but {COMPILER_MISSING}",
        ),
        ({"BASEREWARD_BUILD_EXT": "yes"}, "BASEREWARD_BUILD_EXT=yes is not understood; write auto, 0 or 1"),
        (
            {"FORCE_CUDA": "1", "CXX": "missing-c++"},
            f"BASEREWARD_BUILD_CUDA=1, but {COMPILER_MISSING}",
        ),
        (
            {"BASEREWARD_BUILD_CUDA": "1", "BASEREWARD_BUILD_EXT": "0"},
            "CUDA kernels are asked for, but BASEREWARD_BUILD_EXT=0; unset it",
        ),
        pytest.param(
            {"FORCE_CUDA": "1"},
            f"BASEREWARD_BUILD_CUDA=1, but {NO_CUDA}",
            marks=pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA"),
        ),
    ],
    ids=["forced", "misspelt", "CUDA forced", "CUDA without the rest", "CUDA forced with a CPU torch"],
)
def test_what_was_asked_for_and_cannot_be_done_fails(
    checkout: Path, environment: dict[str, str], reason: str
) -> None:
    status, printed, wheels = build_wheel(checkout, **environment)
    assert status != 0
    assert lines_of(printed) == [f"basereward: {reason}"]
    assert wheels == []


@pytest.mark.slow
@pytest.mark.parametrize("forced", [False, True])
def test_a_source_that_does_not_compile_is_left_out_unless_forced(checkout: Path, forced: bool) -> None:
    (checkout / "csrc" / "cpu" / "broken.cpp").write_text("this is no C++\n")
    status, printed, wheels = build_wheel(checkout, BASEREWARD_BUILD_EXT="1" if forced else "auto")
    if forced:
        assert status != 0
        assert "broken.cpp:1:1: error:" in printed
        assert wheels == []
        return
    assert status == 0, printed
    said = lines_of(printed)
    assert (
        "basereward: basereward._C was left out, since compiling it failed: Error compiling objects for "
        "extension. The package works without it; BASEREWARD_BUILD_EXT=1 makes this an error that says more"
    ) in said
    assert any(line.startswith("basereward: built _host.") for line in said)
    assert not any(line.startswith("basereward: built _C.") for line in said)


@pytest.mark.timeout(900)
def test_source_distribution_to_wheel_to_a_clean_environment(checkout: Path) -> None:
    with tarfile.open(build_sdist(checkout)) as archive:
        archive.extractall(checkout.parent / "unpacked", filter="data")
    (unpacked,) = (checkout.parent / "unpacked").iterdir()
    checkout = unpacked.rename(checkout.parent / "source")
    status, printed, (wheel,) = build_wheel(checkout, BASEREWARD_BUILD_EXT="1")
    assert status == 0, printed
    assert wheel.name.startswith("basereward-0.1.0-cp311-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
        archive.extract("basereward/_C.abi3.so", checkout)
    package = ROOT / "basereward"
    paths = [*package.glob("plugin_template/*.in"), *package.glob("reporting/templates/*")]
    templates = {path.relative_to(ROOT).as_posix() for path in paths}
    recipes = {
        f"basereward/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.toml")
    }
    assert {"basereward/_C.json", "basereward/_host.json", *templates, *recipes, *HEADERS} <= set(held)
    with zipfile.ZipFile(wheel) as archive:
        assert json.loads(archive.read("basereward/_build.json")) == {"left_out": {}}
    assert len(templates) > 10
    assert not [name for name in held if name.startswith(("csrc", "tests", "benchmarks"))]

    if shutil.which("readelf"):
        _, needed = run("readelf", "-d", checkout / "basereward" / "_C.abi3.so", cwd=checkout)
        libraries = [line for line in needed.splitlines() if "(NEEDED)" in line]
        assert not [line for line in libraries if "libpython" in line or "libtorch_python" in line]
    if importlib.util.find_spec("abi3audit"):
        library = checkout / "basereward" / "_C.abi3.so"
        audit = (sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.11", library)
        status, printed = run(*audit, cwd=checkout)
        assert status == 0, printed

    venv.create(checkout.parent / "venv", with_pip=False)
    python = checkout.parent / "venv" / "bin" / "python"
    _, site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=checkout.parent)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site.strip())
    # PYTHONPATH runs no .pth file, so the dependencies are seen and an editable install of this checkout
    # isn't.
    dependencies = Path(torch.__file__).parents[1]
    script = """
from basereward import ops
status = ops.status()
print(status["cpu"]["kernels"], status["host"]["kernels"], ops.__file__, status["cpu"]["reason"], sep="|")
"""
    status, printed = run(python, "-c", script, cwd=checkout.parent, PYTHONPATH=str(dependencies))
    assert status == 0, printed
    kernels, helpers, file, reason = printed.strip().split("|")
    assert (kernels, helpers) == ("cpp", "cpp"), reason
    assert file.startswith(site.strip())
    assert trained(python, {**os.environ, "PYTHONPATH": str(dependencies)})["cpu"] == "cpp"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.version.cuda is None, reason=NO_CUDA)
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_kernels_for_cuda_are_built_without_a_gpu_and_registered(checkout: Path) -> None:
    environment = {"BASEREWARD_BUILD_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0+PTX"}
    status, printed, (wheel,) = build_wheel(checkout, **environment)
    assert status == 0, printed
    site = checkout.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = """
import torch
from basereward import ops
has = torch._C._dispatch_has_kernel_for_dispatch_key
names = ("batched_bt_loss", "pairwise_reward_head", "pairwise_reward_head_backward", "pairwise_reward_loss")
is_there = all(has(f"basereward::{name}", "CUDA") for name in names)
print(ops.status()["cuda"]["build"]["architectures"], is_there)
"""
    status, printed = run(sys.executable, "-c", script, cwd=checkout.parent, PYTHONPATH=str(site))
    assert (status, printed.strip()) == (0, "9.0+PTX True"), printed
