"""Every promise that BaseReward makes of backbones: of one that shares prompts, and of one that can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_vlm

from basereward.testing import Check, conformance


def options(kind: str) -> dict[str, Any]:
    """Return what makes the backbone a tiny model of an architecture."""
    return {"backbone/hf-vlm": lambda place: {"model": str(tiny_vlm.save(Path(place, kind), kind))}}


@conformance("hf-vlm", options=options("idefics3"))
def test_conformance_with_shared_prompts(check: Check) -> None:
    check()


@conformance("hf-vlm", options=options("gemma3"))
def test_conformance_with_a_row_for_each_response(check: Check) -> None:
    check()
