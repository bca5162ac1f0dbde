"""Build the native ops where a compiler and torch are installed; all other metadata is in pyproject.toml.

`basereward/extension.py` says which variables of the environment choose what is built. Without the extensions
the package works through its plain-torch ops.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import setuptools
from setuptools.command.build_py import build_py

# A build runs setup.py without its directory on the path.
sys.path.insert(0, str(Path(__file__).parent.resolve()))

from basereward.extension import NotPossible, compile_flags, native_ops

HERE = Path(__file__).parent.resolve()
OLDEST_SETUPTOOLS = 77
"""The oldest that reads pyproject.toml with a licence by its SPDX name; pyproject.toml says the same."""

if int(setuptools.__version__.partition(".")[0]) < OLDEST_SETUPTOOLS:
    raise SystemExit(
        f"basereward: setuptools {setuptools.__version__} is too old: run pip install -U "
        f"'setuptools>={OLDEST_SETUPTOOLS}', or build without --no-build-isolation"
    )


def host_helpers() -> Any:
    """Return `basereward._host`: helpers of the data path, for the Python that builds them alone."""
    try:
        import pybind11
    except ImportError as error:
        raise NotPossible("pybind11 is not installed; run pip install pybind11") from error
    return setuptools.Extension(
        "basereward._host",
        ["csrc/host/module.cpp"],
        include_dirs=[pybind11.get_include()],
        extra_compile_args=compile_flags(),
        language="c++",
    )


def with_recipes(command: type[build_py]) -> type[build_py]:
    """Return the build_py command that copies the recipes too, which a checkout has beside the package."""

    class BuildWithRecipes(command):  # type: ignore[misc, valid-type]
        """Copy the Python files, and the recipes into `basereward/recipes`."""

        def run(self) -> None:
            super().run()
            if self.editable_mode:
                return
            for path in (HERE / "recipes").rglob("*.toml"):
                target = Path(self.build_lib, "basereward", path.relative_to(HERE))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    return BuildWithRecipes


options = native_ops("basereward", more={"basereward._host": host_helpers})
commands = options.setdefault("cmdclass", {})
commands["build_py"] = with_recipes(commands.get("build_py", build_py))
setuptools.setup(**options)
