"""The metric history of runs: their logs as series of numbers, of running trainings too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basereward.config.conversion import did_you_mean
from basereward.errors import ConfigError
from basereward.storage.reading import parse_json, read_lines, understood
from basereward.training.run_directory import LOG_FILE

Axis = Literal["steps", "pairs", "seconds"]

HELD_OUT = "held-out."
"""The prefix of metrics of held-out data."""


@dataclass(frozen=True)
class RunHistory:
    """The log of a run."""

    name: str
    records: Sequence[Mapping[str, Any]] = field(repr=False)

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the records of a kind."""
        return [record for record in self.records if record.get("kind") == kind]

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each record, parts as `lr.head`; pandas has to be
        installed.
        """
        import pandas

        return pandas.json_normalize([dict(record) for record in self.records])

    @property
    def metrics(self) -> list[str]:
        """The names of all numbers in the log, those of held-out data with the prefix `held-out.`."""
        names: dict[str, None] = {}
        for kind, prefix in (("step", ""), ("evaluation", HELD_OUT)):
            for record in self.of_kind(kind):
                for name, value in record.items():
                    if name in ("kind", "step"):
                        continue
                    if isinstance(value, Mapping):
                        names |= dict.fromkeys([prefix + name, *(f"{prefix}{name}.{key}" for key in value)])
                    elif _is_number(value):
                        names[prefix + name] = None
        return list(names)

    def series(self, metric: str, axis: Axis = "steps") -> tuple[list[float], list[float]]:
        """Return the positions on an axis and the values of a metric; of one by parts, the largest value.

        Records without it are left out.
        """
        kind, name = "step", metric
        if metric.startswith(HELD_OUT):
            kind, name = "evaluation", metric.removeprefix(HELD_OUT)
        positions, values = [], []
        position_of = self._positions(axis)
        for record in self.of_kind(kind):
            value = _value(record, name)
            position = position_of.get(record["step"])
            if value is not None and position is not None:
                positions.append(position)
                values.append(value)
        return positions, values

    def _positions(self, axis: Axis) -> dict[int, float]:
        """Return the position of each step; a step without a record has that of the step before it."""
        positions: dict[int, float] = {}
        position = 0.0
        for record in self.records:
            if "step" not in record:
                continue
            if axis == "steps":
                position = record["step"]
            elif record.get("kind") == "step" and axis == "pairs":
                position += record.get("num_pairs") or 0
            elif record.get("kind") == "step":
                position = record.get("seconds") or position
            positions[record["step"]] = position
        return positions


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
    """Return the exponential moving average of values, corrected for its start at zero.

    Args:
        values: The values.
        smoothing: The weight of the average so far in each step.
    """
    averages: list[float] = []
    total = weight = 0.0
    for value in values:
        total = smoothing * total + (1 - smoothing) * value
        weight = smoothing * weight + 1 - smoothing
        averages.append(total / weight)
    return averages


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; an unfinished last line is left out.

    Raises:
        ConfigError: When it can't be read, or when a line is not a record.
    """
    records: list[dict[str, Any]] = []
    with understood(path, ConfigError):
        for number, line in read_lines(path):
            if not line.endswith(b"\n"):
                break
            try:
                record = parse_json(line.decode("utf-8"))
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: is no record of a training: {error}") from error
            if not isinstance(record, dict):
                raise ConfigError(f"{path}:{number}: is no record of a training")
            records.append(record)
    return records


def read_histories(runs: Sequence[Path]) -> list[RunHistory]:
    """Read the logs of runs; of a run with stages, the log of each stage.

    Args:
        runs: Run directories or log files.

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
    return [RunHistory(name, read_records(log)) for name, log in zip(_names(list(logs)), logs, strict=True)]


def _names(logs: Sequence[Path]) -> list[str]:
    """Return the shortest names that differ: the last parts of the directories' paths."""
    directories = [log.absolute().parent for log in logs]
    for depth in range(1, 1 + max((len(path.parts) for path in directories), default=0)):
        names = ["/".join(path.parts[-depth:]) for path in directories]
        if len(set(names)) == len(names):
            return names
    return [str(log) for log in logs]


def check_metrics(histories: Sequence[RunHistory], metrics: Sequence[str]) -> None:
    """Check that some run has each metric.

    Raises:
        ConfigError: Naming the metrics that the runs have.
    """
    names = list(dict.fromkeys(name for history in histories for name in history.metrics))
    for metric in metrics:
        if metric not in names:
            hint = did_you_mean(metric, names) or ";"
            raise ConfigError(f"metric {metric}: no run has it{hint} there are: {', '.join(names) or 'none'}")
