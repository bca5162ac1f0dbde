"""Time training with a cache of frozen weights' results: epochs with and without one, and a later run.

Run as `python benchmarks/caching.py`; it needs `basereward-mini` and the demo's packages. The head of the
demo's model is trained on its captions, everything else frozen, for two epochs: without a cache, with an
empty one, and in another process with the one that the run before left. A second set of runs trains the
projector and the decoder, too, so that the images' features alone are kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from basereward.config import Component, DataConfig, RunConfig, Source, TrainConfig, to_toml

BATCH_SIZE = 16
FROZEN = {"head alone": ("vision", "projector", "language"), "all but the encoder": ("vision",)}


def write_captions(path: Path, num_rows: int) -> None:
    """Write the demo's captions, the same in every epoch."""
    from itertools import islice

    from basereward_mini.openmoji import OpenMojiCaptions

    from basereward.data.writing import JSONLWriter

    with JSONLWriter(path) as writer:
        for comparison in islice(OpenMojiCaptions(split="train", num_responses=4), num_rows):
            writer.write(comparison)


def seconds_of_epochs(run: RunConfig, run_file: Path) -> list[float]:
    """Train in a process of its own, and return how long the steps of each epoch took."""
    run_file.write_text(to_toml(run), encoding="utf-8")
    command = [sys.executable, "-m", "basereward", "train", str(run_file), "--overwrite"]
    subprocess.run(command, check=True, capture_output=True)
    lines = (Path(run.output) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    num_steps = len(steps) // 2
    ends = [0.0, steps[num_steps - 1]["seconds"], steps[-1]["seconds"]]
    return [ends[1], ends[2] - ends[1]]


def measure(root: Path, frozen: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the seconds of both epochs of each run."""
    found = {}
    runs: dict[str, dict[str, Any]] = {
        "without a cache": {},
        "an empty cache": {"cache": str(root / f"cache-{len(frozen)}")},
        "a later run": {"cache": str(root / f"cache-{len(frozen)}")},
    }
    for name, settings in runs.items():
        run = RunConfig(
            output=str(root / "run"),
            plugins=("basereward_mini",),
            backbone=Component("mini-vlm", {"num_layers": 4}),
            data=DataConfig(train=(Source("basereward", {"path": str(root / "rows.jsonl")}),)),
            train=TrainConfig(
                epochs=2,
                batch_size=BATCH_SIZE,
                freeze=frozen,
                log_every=1,
                save_every=10**6,
                precision="fp32",
            ),
            **settings,
        )
        found[name] = seconds_of_epochs(run, root / "run.toml")
    return found


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=320, help="comparisons of an epoch (default 320)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    print(f"{arguments.rows} comparisons of 4 captions, batches of {BATCH_SIZE}, fp32, seconds of steps")
    print(f"{'trained':22}{'run':18}{'first epoch':>13}{'second epoch':>14}{'first / second':>16}")
    results = []
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_captions(root / "rows.jsonl", arguments.rows)
        for trained, frozen in FROZEN.items():
            for name, (first, second) in measure(root, frozen).items():
                row = {"trained": trained, "run": name, "first_seconds": first, "second_seconds": second}
                results.append(row)
                print(
                    f"{trained:22}{name:18}{first:>11.2f} s{second:>12.2f} s{first / second:>15.1f}x",
                    flush=True,
                )
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        found = {"machine": machine, "rows": arguments.rows, "results": results}
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
