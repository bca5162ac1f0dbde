"""Test what calls transformers with the oldest transformers that pyproject.toml claims.

Run as `python tests/support/floor.py [ARGUMENT OF PYTEST ...]`, or `make test-floor`. The environment is a
temporary one: that version (a wheel of 12 MB is fetched), and all other packages of this Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from environments import ROOT, Environment

TESTS: Final = ("tests/backbones", "tests/interop", "tests/paradigms", "tests/scoring")
PACKAGE: Final = "transformers"


def floor() -> str:
    """Return the oldest version that is claimed, such as `5.18`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.search(rf"^{PACKAGE}>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE)
    assert found is not None, f"pyproject.toml has no oldest version of {PACKAGE}"
    return found[1]


def main() -> int:
    """Make the environment, and return pytest's exit status there."""
    with tempfile.TemporaryDirectory() as temporary:
        made = Environment.make(Path(temporary) / "environment")
        python = made.directory / "bin" / "python"
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-installed"]
        wanted = f"{PACKAGE}=={floor()}.*"
        subprocess.run([python, "-m", "pip", "install", *options, wanted], check=True)
        shown = f"import {PACKAGE}; print('{PACKAGE}', {PACKAGE}.__version__)"
        subprocess.run([python, "-c", shown], check=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *sys.argv[1:]]
        return subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
