"""The logs of runs as series of numbers, whichever keys they have and however far they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basereward.config.conversion import did_you_mean
from basereward.errors import ConfigError
from basereward.training.run_directory import LOG_FILE

Axis = Literal["steps", "pairs", "seconds"]

HELD_OUT = "held-out."
"""What names of held-out metrics begin with."""


@dataclass(frozen=True)
class Course:
    """What the log of a run says.

    Args:
        name: What the run is called beside others.
        records: The log's records, in their order.
    """

    name: str
    records: Sequence[Mapping[str, Any]] = field(repr=False)

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the records of a kind."""
        return [record for record in self.records if record.get("kind") == kind]

    @property
    def metrics(self) -> list[str]:
        """The names of all numbers that there are, those of held-out data with `held-out.` before them."""
        found: dict[str, None] = {}
        for kind, prefix in (("step", ""), ("evaluation", HELD_OUT)):
            for record in self.of_kind(kind):
                for name, value in record.items():
                    if name in ("kind", "step"):
                        continue
                    if isinstance(value, Mapping):
                        found |= dict.fromkeys([prefix + name, *(f"{prefix}{name}.{key}" for key in value)])
                    elif _is_number(value):
                        found[prefix + name] = None
        return list(found)

    def series(self, metric: str, axis: Axis = "steps") -> tuple[list[float], list[float]]:
        """Return the places on an axis and the values of a metric; of one by parts, the largest of them.

        Records without it are left out.
        """
        kind, name = "step", metric
        if metric.startswith(HELD_OUT):
            kind, name = "evaluation", metric.removeprefix(HELD_OUT)
        places, values = [], []
        at = self._places(axis)
        for record in self.of_kind(kind):
            value = _value(record, name)
            place = at.get(record["step"])
            if value is not None and place is not None:
                places.append(place)
                values.append(value)
        return places, values

    def _places(self, axis: Axis) -> dict[int, float]:
        """Return where each step lies; one without a record of its own lies where the one before it does."""
        found: dict[int, float] = {}
        place = 0.0
        for record in self.records:
            if "step" not in record:
                continue
            if axis == "steps":
                place = record["step"]
            elif record.get("kind") == "step" and axis == "pairs":
                place += record.get("num_pairs") or 0
            elif record.get("kind") == "step":
                place = record.get("seconds") or place
            found[record["step"]] = place
        return found


def _value(record: Mapping[str, Any], name: str) -> float | None:
    value: Any = record.get(name)
    if value is None and "." in name:
        first, _, rest = name.partition(".")
        inner = record.get(first)
        value = inner.get(rest) if isinstance(inner, Mapping) else None
    if isinstance(value, Mapping):
        value = max(filter(_is_number, value.values()), default=None)
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def smoothed(values: Sequence[float], smoothing: float) -> list[float]:
    """Return a running mean in which each step keeps a share `smoothing` of the mean before it.

    The first values count in full, so that the mean doesn't begin at zero.
    """
    found: list[float] = []
    total = weight = 0.0
    for value in values:
        total = smoothing * total + (1 - smoothing) * value
        weight = smoothing * weight + 1 - smoothing
        found.append(total / weight)
    return found


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; a last line that is still being written is left out.

    Raises:
        ConfigError: When it can't be read, or another line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: is no record of a training: {error}") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{path}:{number}: is no record of a training")
        found.append(record)
    return found


def read_courses(runs: Sequence[Path]) -> list[Course]:
    """Read the logs of runs, and of a run with stages each stage's.

    Args:
        runs: Their directories, or the log files themselves.

    Raises:
        ConfigError: When one has no log.
    """
    logs: dict[Path, None] = {}
    for run in runs:
        if run.is_file():
            logs[run] = None
        elif (run / LOG_FILE).is_file():
            logs[run / LOG_FILE] = None
        elif stages := sorted(run.glob(f"*/{LOG_FILE}"), key=lambda path: path.stat().st_mtime):
            logs |= dict.fromkeys(stages)
        else:
            what = f"holds no {LOG_FILE}" if run.is_dir() else "isn't there"
            raise ConfigError(f"{run} {what}; give the directory of a run, or its {LOG_FILE}")
    return [Course(name, read_records(log)) for name, log in zip(_names(list(logs)), logs, strict=True)]


def _names(logs: Sequence[Path]) -> list[str]:
    """Return names as short as they can be while all differ."""
    homes = [log.absolute().parent for log in logs]
    for depth in range(1, 1 + max((len(home.parts) for home in homes), default=0)):
        names = ["/".join(home.parts[-depth:]) for home in homes]
        if len(set(names)) == len(names):
            return names
    return [str(log) for log in logs]


def check_metrics(courses: Sequence[Course], metrics: Sequence[str]) -> None:
    """Refuse metrics that no run has.

    Raises:
        ConfigError: Naming those that there are.
    """
    known = list(dict.fromkeys(name for course in courses for name in course.metrics))
    for metric in metrics:
        if metric not in known:
            hint = did_you_mean(metric, known) or ";"
            raise ConfigError(
                f"--metric {metric}: no run has it{hint} there are: {', '.join(known) or 'none'}"
            )
