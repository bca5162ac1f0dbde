"""Packages that fetch kernels of the hub, and run them, as soon as they are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SETTING = "USE_HUB_KERNELS"
"""The environment variable by which transformers is told whether to fetch kernels."""

TRUE = ("1", "ON", "YES", "TRUE")


def import_bitsandbytes() -> None:
    """Import bitsandbytes without the kernel that it would fetch, unless `USE_HUB_KERNELS` is set to `YES`.

    On a CPU that multiplies in bf16 it fetches one while it is imported, if the package `kernels` is there.
    PEFT imports it where it is installed, so that this comes before an import of PEFT.

    Raises:
        ImportError: When it is not installed.
    """
    with without_kernels():
        import bitsandbytes  # noqa: F401


def prepare_peft() -> None:
    """Import what PEFT imports, as far as it would fetch kernels."""
    try:
        import_bitsandbytes()
    except ImportError:  # PEFT needs it for quantized layers alone
        return


@contextmanager
def without_kernels() -> Iterator[None]:
    """Have every import of the package `kernels` fail, unless `USE_HUB_KERNELS` is set to `YES`."""
    if os.environ.get(SETTING, "NO").upper() in TRUE:
        yield
        return
    imported = sys.modules.pop("kernels", None)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # how importing is told that there is none
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if imported is not None:
            sys.modules["kernels"] = imported
