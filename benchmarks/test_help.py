"""Time `basereward --help`, as a user waits for it: a process of its own, plugins discovered."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def test_help(benchmark: Any) -> None:
    command = [sys.executable, "-m", "basereward", "--help"]
    done = benchmark.pedantic(subprocess.run, [command], {"capture_output": True}, rounds=20, warmup_rounds=2)
    assert b"usage: basereward" in done.stdout
