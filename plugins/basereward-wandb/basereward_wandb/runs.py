"""The W&B run that belongs to each run directory."""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

ID_FILE = "wandb-id.txt"
"""In the run directory: which W&B run a resumed training goes on with."""

PREFIXES = {"step": "train", "evaluation": "held-out"}


class Runs:
    """One W&B run at a time: that of the run directory of the latest record."""

    def __init__(self) -> None:
        self._run: Any = None
        self._directory: Path | None = None

    def log(self, record: Mapping[str, Any], run_dir: Path) -> None:
        """Log the numbers of a record at its step.

        After a kill the steps since the last checkpoint are taken again. They come out the same, and W&B
        leaves out what it has.
        """
        run_dir = run_dir.absolute()
        is_new = _is_first_record(run_dir)
        if run_dir != self._directory or is_new:
            self.finish()
            self._run, self._directory = _started(run_dir, is_new=is_new), run_dir
        if record["kind"] in PREFIXES:
            self._run.log(numbers(record, PREFIXES[record["kind"]]), step=record["step"])

    def finish(self) -> None:
        """End the W&B run, if there is one; the end of the process does so too."""
        run, self._run, self._directory = self._run, None, None
        if run is not None:
            run.finish()


RUNS = Runs()


def numbers(record: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the numbers of a record by their path; those that aren't finite are None, and left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            found[f"{prefix}/{name}"] = value
    return found


def _is_first_record(run_dir: Path) -> bool:
    """Tell whether the log has just begun: a training that is resumed goes on with an older one."""
    with (run_dir / "log.jsonl").open("rb") as file:
        file.readline()
        return not file.readline()


def _started(run_dir: Path, *, is_new: bool) -> Any:
    id_file = run_dir / ID_FILE
    if is_new or not id_file.is_file():
        id_file.write_text(secrets.token_hex(8) + "\n", encoding="utf-8")
    # W&B would ask for a key at the terminal, and the training would wait for the answer.
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("not logged in to W&B; run `wandb login`, or set WANDB_MODE=offline")
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "basereward"),
        name=os.environ.get("WANDB_NAME", run_dir.name),
        id=id_file.read_text(encoding="utf-8").strip(),
        resume="allow",
        # A run that the process has besides is left alone.
        reinit="create_new",
        dir=str(run_dir),
        config=tomllib.loads((run_dir / "run.toml").read_text(encoding="utf-8")),
        # Its capture of the terminal doesn't go with a progress bar.
        settings=wandb.Settings(console="off"),
    )
