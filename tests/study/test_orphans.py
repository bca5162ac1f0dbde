"""The processes of a study end when it is killed, and go on from there when it is run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc"),
]

STUDY = """
title = "Without end"
output = "out"
seeds = [0, 1]
keep = "rewards"
baseline = {{ layers = "1" }}
launch = {launch}

[run]
backbone = "tiny"

[[run.data.train]]
name = "basereward"
path = "rows.jsonl"

[[run.data.eval]]
name = "basereward"
path = "rows.jsonl"

[run.train]
batch_size = 8
epochs = 1000000
log_every = 1

[axes.layers]
1.head.num_layers = 1
2.head.num_layers = 2
"""

SECONDS = 400
"""The most that anything is waited for, on a machine however busy."""


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and that those have."""
    children: dict[int, set[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), set()).add(int(directory.name))
    found, waiting = set[int](), [pid]
    while waiting:
        new = children.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def is_running(pid: int) -> bool:
    """Tell whether a process is there that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    "launch", [[], [sys.executable, "-m", "basereward"]], ids=["in the pool", "launched"]
)
def test_the_processes_of_a_killed_study_end(tmp_path: Path, launch: list[str]) -> None:
    runs.write_rows(tmp_path / "rows.jsonl", runs.rows(8, seed=0))
    (tmp_path / "study.toml").write_text(STUDY.format(launch=launch), encoding="utf-8")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "basereward", "study", "study.toml", "--jobs", "2", "--quiet"]
    started = set[int]()
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as study:
        try:
            end = time.monotonic() + SECONDS
            while sum('"step"' in log.read_text() for log in tmp_path.rglob("log.jsonl")) < 2:
                assert study.poll() is None, "the study has ended"
                assert time.monotonic() < end, "no run has begun"
                time.sleep(0.2)
            started = descendants(study.pid)
            assert len(started) >= 3  # the server that forks, and two runs
            study.send_signal(signal.SIGKILL)
            study.wait()
            end = time.monotonic() + SECONDS
            while any(map(is_running, started)):
                assert time.monotonic() < end, f"these are running: {sorted(filter(is_running, started))}"
                time.sleep(0.2)
        finally:
            for pid in filter(is_running, {*started, study.pid}):
                os.kill(pid, signal.SIGKILL)
    # SIGTERM has ended each after its step.
    assert len({path.parents[2] for path in tmp_path.rglob("checkpoint/step-*/state.json")}) == 2
