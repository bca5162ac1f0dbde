"""Experiment trackers of a run (`log = ["wandb", ...]`), by accelerate's."""

from __future__ import annotations

import json
import os
import secrets
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from basereward.storage.atomic import write_text

PROJECT = "basereward"
PLACE = "trackers"
"""In the run directory: what trackers write, and which of their runs a resumed training goes on with."""
IDS_FILE = "ids.json"


class Trackers:
    """Sends the numbers of a run to trackers. One that fails is told of once, and gets no more numbers.

    A training that is resumed goes on with the runs that it began; one that starts anew begins others.

    Args:
        names: Of the run file's `log`.
        run_dir: The run directory, with `run.toml`.
        is_new: Whether the training begins anew.
        warn: Receives a line for each tracker that fails.
    """

    def __init__(
        self, names: tuple[str, ...], run_dir: Path, *, is_new: bool, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._trackers: dict[str, Any] = {}
        if not names:
            return
        place = run_dir / PLACE
        ids = {} if is_new else _read_ids(place)
        config = tomllib.loads((run_dir / "run.toml").read_text(encoding="utf-8"))
        for name in names:
            self._attempt(name, partial(self._start, name, run_dir, ids, config))
        place.mkdir(exist_ok=True)
        write_text(place / IDS_FILE, json.dumps(ids, indent=2) + "\n")

    def _start(self, name: str, run_dir: Path, ids: dict[str, str], config: Mapping[str, Any]) -> None:
        if find_spec(name) is None:
            raise RuntimeError(f"it is not installed; pip install {name}")
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # which accelerate's own log asks for
        cls = LOGGER_TYPE_TO_CLASS[name]
        place = run_dir.absolute() / PLACE
        place.mkdir(exist_ok=True)
        if name == "mlflow":
            tracker = cls(PROJECT, run_id=ids.get(name), run_name=run_dir.name)
        else:
            identity = ids.setdefault(name, secrets.token_hex(8))
            options = OPTIONS[name](run_dir.name, identity, place)
            tracker = cls(_project(name), config=dict(config), **options)
        tracker.start()
        self._trackers[name] = tracker
        if name == "mlflow" and name not in ids:
            ids[name] = tracker.active_run.info.run_id
            tracker.store_init_configuration(_flat(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers by their tags."""
        for name in list(self._trackers):
            self._attempt(name, partial(self._trackers[name].log, dict(values), step=step))

    def close(self) -> None:
        """End the trackers' runs."""
        for name in list(self._trackers):
            self._attempt(name, self._trackers[name].finish)

    def _attempt(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:  # a tracker never ends a training
            self._trackers.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(f"log: {name} gets no more of this training: {reason}")


def _wandb(name: str, identity: str, place: Path) -> dict[str, Any]:
    import wandb

    # W&B would ask for a key at the terminal, and the training would wait for the answer.
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("not logged in to W&B; run `wandb login`, or set WANDB_MODE=offline")
    return {
        "name": os.environ.get("WANDB_NAME", name),
        "id": identity,
        "resume": "allow",
        "reinit": "create_new",  # a run that the process has besides is left alone
        "dir": str(place),
        "settings": wandb.Settings(console="off"),  # its capture of the terminal breaks a progress bar
    }


def _trackio(name: str, identity: str, place: Path) -> dict[str, Any]:
    return {"name": f"{name}-{identity[:6]}", "resume": "allow", "embed": False}


def _swanlab(name: str, identity: str, place: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"experiment_name": name, "logdir": str(place / "swanlab")}
    if "SWANLAB_MODE" not in os.environ and "SWANLAB_API_KEY" not in os.environ:
        return {**options, "mode": "local"}  # without a key it would ask for one
    return options


OPTIONS: Mapping[str, Callable[[str, str, Path], dict[str, Any]]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "swanlab": _swanlab,
}
"""The options of each tracker's run, by the run's name, its id, and a directory to write in."""


def _project(name: str) -> str:
    return os.environ.get(f"{name.upper()}_PROJECT", PROJECT)


def _read_ids(place: Path) -> dict[str, str]:
    try:
        ids = json.loads((place / IDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(identity) for name, identity in ids.items()} if isinstance(ids, dict) else {}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted key; MLflow has no tables."""
    settings: dict[str, Any] = {}
    for key, value in table.items():
        settings |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: str(value)}
        )
    return settings
