"""Arguments of every kind end in a result or in an error, never in memory that is not the op's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from basereward.extension import include_dir, torch_macros
from basereward.testing.native.simt import SANITIZERS

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++")

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(COMPILER is None, reason="there is no g++"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of ops, compiled with AddressSanitizer."""
    import sysconfig

    target = tmp_path_factory.mktemp("boundary") / "libbasereward_checked.so"
    torch_libraries = Path(torch.__file__).parent / "lib"
    paths = [ROOT / "csrc", include_dir(), sysconfig.get_path("include"), *include_paths()]
    macros = [f"-D{name}={value}" for name, value in torch_macros().items()]
    flags = ["-std=c++17", "-fPIC", "-shared", "-fopenmp-simd", *SANITIZERS, "-g1", *macros]
    sources = [ROOT / "csrc" / "library.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]
    command = [COMPILER, *flags, *[f"-I{path}" for path in paths], *sources, "-o", target]
    command += [f"-L{torch_libraries}", f"-Wl,-rpath,{torch_libraries}", "-ltorch", "-ltorch_cpu", "-lc10"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if "asan" in done.stderr or "ubsan" in done.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return target


def run(library: Path, script: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process in which memory is watched."""
    preload = [
        subprocess.run(
            [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        # Python and torch leave memory behind when they end, and torch links its parts in ways of its own.
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *script, str(library), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# The package's own library would register the ops a second time; this stands in for it.
STAND_IN = """
import sys, types
stand_in = types.ModuleType("basereward._C")
stand_in.__file__ = sys.argv[1]
sys.modules["basereward._C"] = stand_in
import runpy
runpy.run_path({script!r}, run_name="__main__")
"""


def test_no_argument_makes_an_op_touch_memory_that_is_not_its_own(library: Path) -> None:
    script = STAND_IN.format(script=str(ROOT / "tests" / "support" / "boundary.py"))
    done = run(library, ["-c", script])
    assert done.returncode == 0, done.stderr[-4000:]
    returned, refused = map(int, done.stdout.split())
    # Neither kind is rare, or the other would have been tried for nothing.
    assert min(returned, refused) > 200
