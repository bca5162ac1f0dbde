"""The wheels of a release: their tags, and what is in them for which machine and which Python."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILDER = ROOT / ".ci" / "wheels.py"

pytestmark = [
    pytest.mark.external,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BUILDER.is_file(), reason="needs a source checkout"),
    pytest.mark.skipif(shutil.which("patchelf") is None, reason="there is no patchelf"),
    pytest.mark.skipif(importlib.util.find_spec("auditwheel") is None, reason="there is no auditwheel"),
]


@pytest.mark.parametrize(("machine", "compiler"), [("x86_64", "g++"), ("aarch64", "aarch64-linux-gnu-g++")])
def test_a_wheel_serves_every_python_and_passes_its_check(
    machine: str, compiler: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    build = [sys.executable, BUILDER, "--machine", machine, "--output", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("basereward-0.1.0-cp311-abi3-manylinux_2_")
    assert wheel.name.endswith(f"_{machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name for name in archive.namelist() if name.endswith(".so")}
    tag = (sysconfig.get_config_var("SOABI") or "").split("-")[1]
    assert {"basereward/_C.abi3.so", f"basereward/_host.cpython-{tag}-{machine}-linux-gnu.so"} <= libraries
    subprocess.run([sys.executable, BUILDER, "--check", wheel], cwd=ROOT, check=True)
