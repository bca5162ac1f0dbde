"""Every promise that BaseReward makes of its parts, one test each."""

from __future__ import annotations

from basereward.testing import Check, conformance


@conformance(
    "multi-objective", heads={"paradigm/multi-objective": "gated", "paradigm/uncertain": "uncertain"}
)
def test_conformance(check: Check) -> None:
    check()
