"""The hooks of basereward-vllm: names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping


@hookimpl
def basereward_writers() -> Mapping[str, str]:
    """Return vLLM's offline engine."""
    return {"vllm": "basereward_vllm.writers:VLLM"}
