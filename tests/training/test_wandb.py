"""`log = ["wandb"]` with the real W&B, offline: nothing here needs a network or an account."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

wandb = pytest.importorskip("wandb", reason="wandb is not installed; pip install wandb")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.external

BLOCK = 32768  # bytes

SCRIPT = """
import sys
from pathlib import Path

from basereward.plugins import PluginManager
from basereward.training.run_log import RunLog

for run_dir, offset, steps in eval(sys.argv[1]):
    log = RunLog(Path(run_dir), PluginManager(), offset=offset, trackers=("wandb",), warn=print)
    for step in steps:
        rates = {"head": 0.1, "language": 0.01}
        log.write("step", step=step, loss=1.0 / step, accuracy=float("nan"), lr=rates)
        log.write("evaluation", step=step, accuracy=0.75)
        log.write("checkpoint", step=step, directory="checkpoint/step")
    log.close()
"""


def run_dir(place: Path) -> Path:
    """Return the directory of a run that is about to begin."""
    place.mkdir()
    (place / "run.toml").write_text('output = "run"\nseed = 7\n[train]\nlr = 1e-5\n')
    return place


def log(*parts: tuple[Path, int, list[int]], **environment: str) -> list[str]:
    """Log steps in a process of its own: run directory, bytes of the log to go on from, steps.

    Returns:
        The lines of warnings.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repr([(str(place), *rest) for place, *rest in parts])],
        env={**clean, "WANDB_MODE": "offline", "WANDB_SILENT": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("log: ")]


def payloads(path: Path) -> Iterator[bytes]:
    """Yield the records of a W&B file: LevelDB's log format after a header of 7 bytes."""
    data, place, held = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # too short for a record's header
            place += left
            continue
        length, kind = struct.unpack_from("<4xHB", data, place)
        held += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield held
            held = b""


def runs(place: Path) -> list[dict[str, Any]]:
    """Return what is in the W&B runs of a run directory, the oldest first."""
    from wandb.proto import wandb_internal_pb2

    written = place.glob("trackers/wandb/offline-run-*/*.wandb")
    found = []
    for path in sorted(written, key=lambda path: path.stat().st_mtime_ns):
        run: dict[str, Any] = {"history": [], "config": {}}
        for payload in payloads(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {name: getattr(record.run, name) for name in ("run_id", "display_name", "project")}
                for item in record.run.config.update:
                    run["config"][item.key] = json.loads(item.value_json)
            elif kind == "history":
                values = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
                run["history"].append(values)
        found.append(run)
    return found


def test_every_number_of_a_training_is_in_its_run(tmp_path: Path) -> None:
    place = run_dir(tmp_path / "first")
    assert log((place, 0, [2, 4])) == []
    (run,) = runs(place)
    assert (run["display_name"], run["project"]) == ("first", "basereward")
    assert run["config"].items() >= {"seed": 7, "train": {"lr": 1e-5}, "output": "run"}.items()
    own = [{name: value for name, value in item.items() if name[0] != "_"} for item in run["history"]]
    assert own == [
        {"train/loss": 1 / step, "train/lr/head": 0.1, "train/lr/language": 0.01, "eval/accuracy": 0.75}
        for step in (2, 4)
    ]
    assert [item["_step"] for item in run["history"]] == [2, 4]


def test_a_resumed_training_goes_on_with_its_run_and_a_new_one_has_its_own(tmp_path: Path) -> None:
    place = run_dir(tmp_path / "run")
    log((place, 0, [2, 4]))
    (first,) = runs(place)
    log((place, (place / "log.jsonl").stat().st_size, [6]))
    assert [run["run_id"] for run in runs(place)] == [first["run_id"]] * 2
    assert [item["_step"] for item in runs(place)[1]["history"]] == [6]

    (place / "log.jsonl").unlink()  # as --overwrite does
    log((place, 0, [2]))
    *_, last = runs(place)
    assert last["run_id"] != first["run_id"]


def test_each_stage_has_a_run_of_its_own(tmp_path: Path) -> None:
    stages = [run_dir(tmp_path / name) for name in ("first", "second")]
    log(*((stage, 0, [2]) for stage in stages))
    ((first,), (second,)) = map(runs, stages)
    assert first["run_id"] != second["run_id"]
    assert (first["display_name"], second["display_name"]) == ("first", "second")
    assert len(first["history"]) == len(second["history"]) == 1


def test_who_is_not_logged_in_is_told_once_and_trains_on(tmp_path: Path) -> None:
    place = run_dir(tmp_path / "run")
    said = log((place, 0, [2, 4]), WANDB_MODE="online", HOME=str(tmp_path), NETRC=str(tmp_path / "none"))
    assert said == [
        "log: wandb gets no more of this training: not logged in to W&B; run `wandb login`, or set "
        "WANDB_MODE=offline"
    ]
    assert len((place / "log.jsonl").read_text().splitlines()) == 6
