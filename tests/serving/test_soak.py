"""A short form of `make soak`: good, bad, slow, cancelled and hostile requests, and a stop under load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_request_is_lost_or_wrong(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    command = [
        sys.executable,
        "benchmarks/soak.py",
        "--seconds",
        "5",
        "--rests",
        "2",
        "--output",
        str(output),
    ]
    # What is allocated once is no leak, and takes longer than that to be there.
    command += ["--allowed-growth", "500"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert (found["lost"], found["wrong"]) == (0, 0)
    kinds = {"good", "bad", "slow", "cancelled", "half-open", "literals", "big"}
    assert set(found["sent"]) == kinds
    assert found["answered"]["200"] > 0
    assert found["last_words"][-1].startswith("requests: ")
    assert found["last_words"][-1].endswith("; none without an answer")
