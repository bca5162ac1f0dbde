"""Every first-party component passes the kit that third parties' have to pass."""

from __future__ import annotations

import small

from basereward.testing import Check, conformance


@conformance(
    "basereward",
    options=small.options(),
    xfail={
        "loss/regression:never-rises-with-a-margin": "it holds rewards to their ratings, however far apart",
    },
)
def test_conformance(check: Check) -> None:
    check()
