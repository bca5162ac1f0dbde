"""Build the native ops where a compiler and torch are installed; all other metadata is in pyproject.toml.

`basereward/extension.py` says which variables of the environment choose what is built. Without the extensions
the package works through its plain-torch ops.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from setuptools import setup

# A build runs setup.py without its directory on the path.
sys.path.insert(0, str(Path(__file__).parent.resolve()))

from basereward.extension import NotPossible, compile_flags, native_ops


def host_helpers() -> Any:
    """Return `basereward._host`: helpers of the data path, for the Python that builds them alone."""
    from setuptools import Extension

    try:
        import pybind11
    except ImportError as error:
        raise NotPossible("pybind11 is not installed; run pip install pybind11") from error
    return Extension(
        "basereward._host",
        ["csrc/host/module.cpp"],
        include_dirs=[pybind11.get_include()],
        extra_compile_args=compile_flags(),
        language="c++",
    )


setup(**native_ops("basereward", more={"the native helpers of the data path": host_helpers}))
