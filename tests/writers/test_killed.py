"""A judge that is killed and started again asks for nothing that was answered."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from judge_server import Fault, JudgeServer, serving

pytest.importorskip("httpx2")

NUM_ROWS = 40
IN_FLIGHT = 4


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"question {at}", "responses": ["two words", "one"]} for at in range(NUM_ROWS)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output, cache = tmp_path / "rewards.jsonl", tmp_path / "cache"
    with serving(JudgeServer()) as server:
        server.faults = lambda number, body: Fault(seconds=0.03)
        judge = tmp_path / "judge.toml"
        judge.write_text(
            f'[writer]\nname = "endpoint"\nurls = ["{server.url}"]\nin_flight = {IN_FLIGHT}\n'
            f'cache = "{cache}"\n'
        )
        command = [sys.executable, "-m", "basereward", "score", str(judge), "--input", str(data)]
        command += ["--output", str(output), "--overwrite", "--quiet"]
        num_kept = 0
        for least in (10, 30, 50):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(list(cache.rglob("[0-9a-f]*.json"))) < least and process.poll() is None:
                time.sleep(0.005)
            process.kill()
            process.wait()
            num_kept = len(list(cache.rglob("[0-9a-f]*.json")))
            assert least <= num_kept < 2 * NUM_ROWS
        subprocess.run(command, capture_output=True, check=True)
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.asked)
    rewards = [json.loads(line)["rewards"] for line in output.read_text().splitlines()]
    assert len(rewards) == NUM_ROWS
    assert all(first > second for first, second in rewards)
    assert len(asked) == 2 * NUM_ROWS
    # Of each kill, those in flight alone had no answer, and were asked again.
    assert sum(asked.values()) <= 2 * NUM_ROWS + 3 * IN_FLIGHT
