"""A distribution's tests need it installed; where it is not, they are left out, and the header says so."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parent


def is_missing(name: str) -> bool:
    """Tell whether a distribution is not installed."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return True
    return False


MISSING = sorted(path.parent.name for path in ROOT.glob("*/pyproject.toml") if is_missing(path.parent.name))
collect_ignore = [*MISSING, "install_and_test.py"]  # the latter is no test, for all its name


def pytest_report_header() -> str | None:
    """Say which distributions are left out."""
    return f"not installed, so not tested: {', '.join(MISSING)}" if MISSING else None
