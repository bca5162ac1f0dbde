"""The results of a study: each run's metrics, and its score of every unit that all runs have scored."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basereward.errors import ConfigError
from basereward.stats.metric import Metric
from basereward.stats.seeds import Units
from basereward.storage.atomic import write_bytes, write_text
from basereward.storage.reading import opened, parse_json, read_lines, understood

RESULTS_FILE, UNIT_SCORES_FILE = "results.jsonl", "unit_scores.json.gz"

MAX_UNIT_SCORES_BYTES = 2**30
"""Bytes of all scores, unpacked: one for each unit of each run and column."""

DIGITS = {0.0: "0", 1.0: "1", 0.5: "="}
"""Digits of unit scores in a file: wrong, right, and equal rewards that count half."""

SCORES = {digit: score for score, digit in DIGITS.items()}


@dataclass(frozen=True)
class RunResult:
    """The metrics of one run, or of one seed of an ensemble.

    Attributes:
        row: The name of its cell, or the label of its ensemble.
        labels: The cell's labels by axis; empty for an ensemble.
        seed: Its seed.
        values: The metrics by the titles of their columns.
        facts: Seconds, and the counts of its paradigm.
        error: Why it has no values; empty if it has.
    """

    row: str
    labels: Mapping[str, str]
    seed: int
    values: Mapping[str, float]
    facts: Mapping[str, Any]
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `results.jsonl`."""
        return asdict(self)


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        runs: All runs, those that failed included.
        units: What each column's metric is made of.
        unit_scores: [U] by column, row and seed.
        num_left_out: Comparisons of each source that a run could not score, and that count for none.
    """

    runs: Sequence[RunResult]
    units: Mapping[str, Units]
    unit_scores: Mapping[tuple[str, str, int], NDArray[np.float64]]
    num_left_out: Mapping[str, int]

    def seeds_of(self, column: str, row: str) -> list[int]:
        """Return the seeds for which a row has a number."""
        return [run.seed for run in self.runs if run.row == row and column in run.values]

    def unit_scores_of(self, column: str, row: str, seeds: Sequence[int]) -> NDArray[np.float64]:  # [S, U]
        """Return the unit scores of a row, seed by seed."""
        return np.stack([self.unit_scores[column, row, seed] for seed in seeds])

    def save(self, directory: Path) -> None:
        """Write `results.jsonl`, and `unit_scores.json.gz` from which every test can be computed again."""
        directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(run.to_dict(), ensure_ascii=False) + "\n" for run in self.runs)
        write_text(directory / RESULTS_FILE, lines)
        content = {
            "num_left_out": self.num_left_out,
            "columns": {
                title: {
                    "unit": units.unit,
                    "weights": [float(units.weight[units.part == part][0]) for part in _parts(units)],
                    "sizes": [int((units.part == part).sum()) for part in _parts(units)],
                    "groups": units.group.tolist(),
                }
                for title, units in self.units.items()
            },
            "unit_scores": [
                {"column": column, "row": row, "seed": seed, "scores": _written(scores)}
                for (column, row, seed), scores in self.unit_scores.items()
            ],
        }
        # Without a time, so that the same results are the same bytes.
        packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
        write_bytes(directory / UNIT_SCORES_FILE, packed)

    @classmethod
    def load(cls, directory: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            ConfigError: When it isn't there, or can't be read.
        """
        for path in (directory / RESULTS_FILE, directory / UNIT_SCORES_FILE):
            if not path.exists():
                reason = f"{os.strerror(errno.ENOENT)}: {path}"
                raise ConfigError(f"{directory} holds no results of a study ({reason})")
        with understood(directory / RESULTS_FILE, ConfigError):
            lines = [parse_json(line.decode("utf-8")) for _, line in read_lines(directory / RESULTS_FILE)]
            runs = [RunResult(**line) for line in lines]
        path = directory / UNIT_SCORES_FILE
        with understood(path, ConfigError), opened(path) as file, gzip.open(file) as unpacked:
            content = unpacked.read(MAX_UNIT_SCORES_BYTES + 1)
            if len(content) > MAX_UNIT_SCORES_BYTES:
                raise ValueError(f"unpacked, it has more than the {MAX_UNIT_SCORES_BYTES:,} bytes allowed")
            return cls._of(runs, parse_json(content.decode("utf-8")))

    @classmethod
    def _of(cls, runs: Sequence[RunResult], content: Mapping[str, Any]) -> Results:
        units = {}
        for title, column in content["columns"].items():
            sizes = column["sizes"]
            part = np.repeat(np.arange(len(sizes)), sizes)
            units[title] = Units(
                column["unit"], np.repeat(column["weights"], sizes), part, np.array(column["groups"])
            )
        unit_scores = {
            (entry["column"], entry["row"], entry["seed"]): _read(entry["scores"])
            for entry in content["unit_scores"]
        }
        return cls(runs, units, unit_scores, dict(content["num_left_out"]))


class Columns:
    """Collect the metrics of runs, which are all of the same units."""

    def __init__(self) -> None:
        self.units: dict[str, Units] = {}
        self.unit_scores: dict[tuple[str, str, int], NDArray[np.float64]] = {}

    def add(self, title: str, row: str, seed: int, metric: Metric) -> float:
        """Take a metric, and return its value."""
        units = self.units.setdefault(title, Units.of(metric))
        unit_scores = np.concatenate([part.unit_scores for part in metric.parts])
        assert unit_scores.shape == units.weight.shape, f"{title}: the runs are not of the same units"
        self.unit_scores[title, row, seed] = unit_scores
        return units.value(unit_scores)

    def average(self, title: str, parts: Sequence[str], row: str, seed: int) -> float:
        """Take the mean of columns that were added before, and return it."""
        units = self.units.setdefault(title, Units.average([self.units[part] for part in parts]))
        unit_scores = np.concatenate([self.unit_scores[part, row, seed] for part in parts])
        self.unit_scores[title, row, seed] = unit_scores
        return units.value(unit_scores)


def _parts(units: Units) -> range:
    return range(int(units.part.max()) + 1)


def _written(scores: NDArray[np.float64]) -> str | list[float]:
    values = scores.tolist()
    return "".join(map(DIGITS.__getitem__, values)) if set(values) <= DIGITS.keys() else values


def _read(written: str | list[float]) -> NDArray[np.float64]:
    return np.array([SCORES[digit] for digit in written] if isinstance(written, str) else written)
