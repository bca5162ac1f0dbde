"""The log of a training: `log.jsonl`, TensorBoard, and the loggers of plugins."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from basereward.extras import install_command
from basereward.plugins.plugin_manager import PluginManager
from basereward.training.trackers import Trackers

PREFIXES = {"step": "train", "evaluation": "eval"}
"""The first part of tags in TensorBoard and trackers, by the kind of a record."""


class RunLog:
    """Writes each record to `log.jsonl`, to TensorBoard, to trackers, and to the hook `basereward_log`.

    A record has a `kind`: "step", "evaluation" or "checkpoint". `log.jsonl` has one JSON object per line, and
    before them one of the kind "start", with device and precision.

    Args:
        run_dir: The run directory, with `log.jsonl` and `tensorboard/`.
        plugins: Calls the hook.
        offset: Length of `log.jsonl` in bytes at the checkpoint; records that a killed run wrote later are
            cut off.
        step: The checkpoint's step; TensorBoard discards later events.
        trackers: Names of experiment trackers.
        warn: Receives a line if TensorBoard is not installed, or a tracker fails.
    """

    def __init__(
        self,
        run_dir: Path,
        plugins: PluginManager,
        *,
        offset: int = 0,
        step: int = 0,
        trackers: tuple[str, ...] = (),
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.run_dir = run_dir
        self.plugins = plugins
        self._file = (run_dir / "log.jsonl").open("ab")
        self._file.truncate(min(offset, os.fstat(self._file.fileno()).st_size))
        self._events = _event_writer(run_dir / "tensorboard", step, warn)
        self._trackers = Trackers(trackers, run_dir, is_new=offset == 0, warn=warn)

    def write_start(self, facts: Mapping[str, str]) -> None:
        """Write the first record of a training to `log.jsonl`: facts of all its steps."""
        self._append({"kind": "start", "step": 0, **facts})

    def _append(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def write(self, kind: str, **values: Any) -> dict[str, Any]:
        """Write one record, and return it."""
        record = {"kind": kind, **{name: _plain(value) for name, value in values.items()}}
        self._append(record)
        if kind in PREFIXES:
            values = {f"{PREFIXES[kind]}/{name}": value for name, value in _flat(record).items()}
            self._trackers.log(values, record["step"])
            for tag, value in values.items() if self._events is not None else ():
                self._events.add_scalar(tag, value, record["step"])
        self.plugins.emit("basereward_log", record=record, run_dir=self.run_dir)
        return record

    def sync(self) -> int:
        """Sync `log.jsonl` to disk, and return its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._trackers.close()
        if self._events is not None:
            self._events.close()


def _event_writer(directory: Path, step: int, warn: Callable[[str], None]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warn(f"TensorBoard is not installed: no events; {install_command('train')} brings it")
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)


def _plain(value: Any) -> Any:
    """Return a JSON value; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a record by path, such as `lr/head`."""
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            numbers[prefix + name] = value
    return numbers
