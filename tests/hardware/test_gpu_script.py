"""The script of the first minutes on a GPU, as far as a CPU can run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "gpu" / "everything.py"

pytestmark = pytest.mark.external


def run(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def records(output: Path) -> list[dict[str, object]]:
    lines = (output / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_code_of_every_step_runs_on_a_cpu(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry", "--seconds", "1700", "--patience", "8")
    assert done.returncode == 0, done.stdout
    found = records(tmp_path)
    outcomes = {record["step"]: record["outcome"] for record in found if "outcome" in record}
    assert set(outcomes.values()) == {"passed"}
    assert {"machine", "build", "models", "ops_tests", "attention", "scoring", "training"} <= set(outcomes)
    assert all(record["no_measurement"] for record in found)
    assert {record["form"] for record in found if record["step"] == "attention" and "form" in record} == {
        "forest",
        "plain",
        "dense",
    }
    same = {record["deterministic"]: record["same_bytes"] for record in found if "same_bytes" in record}
    assert same == {"false": True, "true": True}  # on a CPU


@pytest.mark.timeout(300)
def test_a_step_that_is_too_slow_ends_alone_and_keeps_its_place_in_the_records(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry", "--steps", "machine", "waits", "--patience", "0.001")
    assert done.returncode == 1
    outcomes = [record["outcome"] for record in records(tmp_path)]
    assert outcomes == ["ended after 0 s"] * 2
    assert "machine: ended after 0 s" in done.stdout


@pytest.mark.timeout(300)
def test_an_unknown_step_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry", "--steps", "magic")
    assert done.returncode == 2
    assert "there is no step magic; allowed: build, machine" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.timeout(300)
def test_without_a_gpu_it_says_so_and_ends_well(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "skipped")
