"""The native ops: compiled where they are, and in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from unittest.mock import patch

from torch import Tensor

from basereward import ops
from basereward.testing.subject import does_not_apply, require_alike

TOLERANCE = 1e-5


def require_plain_kernels_agree(results: Callable[[], Mapping[str, Tensor]]) -> None:
    """Raise `Failed` unless the compiled kernels give what BASEREWARD_KERNELS=torch gives.

    Args:
        results: Computes tensors by what they are.
    """
    from basereward.ops._loader import library

    if ops.status()["cpu"]["kernels"] != "cpp":
        does_not_apply(f"there are no compiled kernels here: {ops.status()['cpu']['reason']}")
    compiled = results()
    with patch.object(library, "devices", frozenset()), patch.object(library, "choice", "torch"):
        plain = results()
    for name, found in compiled.items():
        require_alike(
            found, plain[name], f"{name} of the compiled kernels, and of plain torch", tolerance=TOLERANCE
        )
