"""Every promise that BaseReward makes of a head; one compares the compiled op with its twin."""

from __future__ import annotations

from basereward.testing import Check, conformance


@conformance("example-op", options={"head/swiglu": {"width": 24}})
def test_conformance(check: Check) -> None:
    check()
