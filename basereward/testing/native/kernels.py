"""The native ops: compiled where they are, and in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from basereward import ops
from basereward.testing.subject import does_not_apply, require_alike

TOLERANCE = 1e-5


def require_plain_kernels_agree(results: Callable[[], Mapping[str, Tensor]]) -> None:
    """Raise `Failed` unless the compiled kernels give what BASEREWARD_KERNELS=torch gives.

    Args:
        results: Computes tensors by what they are.
    """
    with ops.plain_kernels() as passed_over:
        plain = results()
    if not passed_over:
        does_not_apply(f"it calls no compiled kernels; basereward's: {ops.status()['cpu']['reason']}")
    for name, actual in results().items():
        require_alike(
            actual, plain[name], f"{name} of the compiled kernels, and of plain torch", tolerance=TOLERANCE
        )
