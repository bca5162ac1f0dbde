"""Every promise that BaseReward makes of its parts, one test each: `pytest -k has-the-right-gradient`."""

from __future__ import annotations

import shutil
from pathlib import Path

from basereward.testing import Check, conformance

ROOT = Path(__file__).parents[1]


@conformance(
    "example",
    # What is tried out is a copy, since files are spoiled to see whether that is noticed.
    options={
        "dataset/example-votes": lambda place: {"path": str(shutil.copy(ROOT / "votes.jsonl", place))},
        "benchmark/example-duels": lambda place: {"path": str(shutil.copy(ROOT / "duels.jsonl", place))},
    },
)
def test_conformance(check: Check) -> None:
    check()
