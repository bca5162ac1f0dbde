"""Every promise that BaseReward makes of its parts, one test each."""

from __future__ import annotations

from basereward.testing import Check, conformance


@conformance("ties")
def test_conformance(check: Check) -> None:
    check()
