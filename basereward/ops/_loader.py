"""BaseReward's own native libraries: those of its ops, and the helpers on the host."""

from __future__ import annotations

from typing import Any, Final

from basereward.ops._library import Library, Part

OPS: Final = (
    "batched_bt_loss",
    "bt_loss_on_cpu",
    "pairwise_reward_head",
    "pairwise_reward_head_backward",
    "pairwise_reward_loss",
)

library: Final = Library("basereward", OPS)
host: Final = Part.load("basereward._host", library.choice)


def status() -> dict[str, Any]:
    """Return which kernels are in use, why, and how the libraries were built.

    Returns:
        Under `cpu`, `cuda` and `host`: `kernels` ("cpp", or "torch", for the host "numpy"), `reason`,
        `library` (its path, or "") and `build` (compiler, flags, torch ...; empty without a library).
    """
    facts = {**library.status(), "host": host.status("numpy")}
    if host.module is not None:
        facts["host"]["build"] |= host.module.build_info()
    return facts
