"""The steps of everything.py that train by the command that a user types."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from measure import DEVICE, record

WORDS = ("cat", "dog", "bird", "red", "blue", "green")


def training_files(directory: Path, dry: bool) -> tuple[Path, Path]:
    """Write a Qwen2.5-VL and pairs with pictures, and return both."""
    rows = []
    for number in range(16 if dry else 128):
        tiny.image(*((56, 56) if dry else (448, 448)), number).save(directory / f"{number}.png")
        words = [f"{WORDS[(number + shift) % len(WORDS)]} " * (4 if dry else 100) for shift in (0, 3)]
        rows.append({"prompt": f"what is it {number}", "images": [f"{number}.png"], "responses": words})
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "ranks": [0, 1]}) + "\n" for row in rows), encoding="utf-8")
    sizes = {}
    if not dry:
        sizes = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 12}
        sizes |= {"num_attention_heads": 16, "num_key_value_heads": 2}
    return tiny.save_qwen_vl(directory / "model", "qwen2_5_vl", **({} if dry else sizes)), path


def digest(directory: Path) -> str:
    """Return the SHA-256 of a saved model's weights."""
    found = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()


def train(run_dir: Path, model: Path, rows: Path, *more: str, launcher: Sequence[str] = ()) -> float:
    """Run a training by the command that a user types, and return its seconds."""
    settings = {
        "backbone": f'{{name = "qwen-vl", model = "{model}"}}',
        "data.train": f'[{{name = "basereward", path = "{rows}"}}]',
        "train.batch_size": "4",
        "train.max_steps": "5",
        "train.log_every": "1",
        "train.device": f'"{DEVICE}"',
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    file = run_dir.with_suffix(".toml")
    file.write_text(f'output = "{run_dir}"\n{lines}', encoding="utf-8")
    command = [*(launcher or [sys.executable]), "-m", "basereward", "train", str(file), *more]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, file=sys.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - start


def steps_of(run_dir: Path) -> list[Mapping[str, Any]]:
    """Return the records of a run's steps."""
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [item for item in map(json.loads, lines) if item["kind"] == "step"]


def training(dry: bool) -> None:
    """Five steps on pictures by `basereward train`, twice, with and without `deterministic`."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model, rows = training_files(directory, dry)
        for deterministic in ("false", "true"):
            digests = []
            for number in range(2):
                run_dir = directory / f"run-{deterministic}-{number}"
                seconds = train(run_dir, model, rows, "--set", f"train.deterministic={deterministic}")
                digests.append(digest(run_dir / "last"))
                last = steps_of(run_dir)[-1]
                record(deterministic=deterministic, seconds=seconds, last_step=last)
            record(deterministic=deterministic, same_bytes=len(set(digests)) == 1)


def sharded(dry: bool) -> None:
    """One process under torchrun with FSDP2."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model, rows = training_files(directory, True)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        run_dir = directory / "run"
        seconds = train(run_dir, model, rows, "--set", "train.parallel=fsdp", launcher=launcher)
        record(seconds=seconds, num_steps=len(steps_of(run_dir)), digest=digest(run_dir / "last"))
