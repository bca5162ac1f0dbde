"""What the runs of a study found: rewards of all runs to credit of the units that all of them have scored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from basereward.errors import ConfigError
from basereward.stats.seeds import Units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from basereward.stats.measure import Measure

RESULTS_FILE, CREDIT_FILE = "results.jsonl", "credit.json.gz"

DIGITS = {0.0: "0", 1.0: "1", 0.5: "="}
"""How credit is written: wrong, right, and equal rewards that count half."""

CREDITS = {digit: credit for credit, digit in DIGITS.items()}


@dataclass(frozen=True)
class RunResult:
    """What one run, or one seed of an ensemble, has scored.

    Attributes:
        row: The name of its cell, or the label of its ensemble.
        labels: The cell's labels by axis; empty for an ensemble.
        seed: Its seed.
        values: The metrics by the titles of their columns.
        facts: What else is known: seconds, and what its paradigm has counted.
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
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        runs: All runs, those that failed included.
        units: What each column's metric is made of.
        credit: [U] by column, row and seed.
        num_left_out: Comparisons of each source that a run could not score, and that count for none.
    """

    runs: Sequence[RunResult]
    units: Mapping[str, Units]
    credit: Mapping[tuple[str, str, int], NDArray[np.float64]]
    num_left_out: Mapping[str, int]

    def seeds_of(self, column: str, row: str) -> list[int]:
        """Return the seeds for which a row has a number."""
        return [run.seed for run in self.runs if run.row == row and column in run.values]

    def credit_of(self, column: str, row: str, seeds: Sequence[int]) -> NDArray[np.float64]:  # [S, U]
        """Return the credit of a row's units, seed by seed."""
        return np.stack([self.credit[column, row, seed] for seed in seeds])

    def save(self, directory: Path) -> None:
        """Write `results.jsonl`, and `credit.json.gz` from which every test can be computed again."""
        directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(run.to_dict(), ensure_ascii=False) + "\n" for run in self.runs)
        (directory / RESULTS_FILE).write_text(lines, encoding="utf-8")
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
            "credit": [
                {"column": column, "row": row, "seed": seed, "credit": _written(credit)}
                for (column, row, seed), credit in self.credit.items()
            ],
        }
        # Without a time, so that the same results are the same bytes.
        packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
        (directory / CREDIT_FILE).write_bytes(packed)

    @classmethod
    def load(cls, directory: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            ConfigError: When it isn't there.
        """
        try:
            lines = (directory / RESULTS_FILE).read_text(encoding="utf-8").splitlines()
            content = json.loads(gzip.decompress((directory / CREDIT_FILE).read_bytes()))
        except OSError as error:
            raise ConfigError(
                f"{directory} holds no results of a study ({error.strerror}: {error.filename})"
            ) from error
        units = {}
        for title, column in content["columns"].items():
            sizes = column["sizes"]
            part = np.repeat(np.arange(len(sizes)), sizes)
            units[title] = Units(
                column["unit"], np.repeat(column["weights"], sizes), part, np.array(column["groups"])
            )
        credit = {(one["column"], one["row"], one["seed"]): _read(one["credit"]) for one in content["credit"]}
        return cls([RunResult(**json.loads(line)) for line in lines], units, credit, content["num_left_out"])


class Columns:
    """Collects the measures of runs, which are all of the same units."""

    def __init__(self) -> None:
        self.units: dict[str, Units] = {}
        self.credit: dict[tuple[str, str, int], NDArray[np.float64]] = {}

    def add(self, title: str, row: str, seed: int, measure: Measure) -> float:
        """Take a measure, and return its value."""
        units = self.units.setdefault(title, Units.of(measure))
        credit = np.concatenate([part.credit for part in measure.parts])
        assert credit.shape == units.weight.shape, f"{title}: the runs are not of the same units"
        self.credit[title, row, seed] = credit
        return units.value(credit)

    def average(self, title: str, parts: Sequence[str], row: str, seed: int) -> float:
        """Take the mean of columns that were added before, and return it."""
        units = self.units.setdefault(title, Units.average([self.units[part] for part in parts]))
        credit = np.concatenate([self.credit[part, row, seed] for part in parts])
        self.credit[title, row, seed] = credit
        return units.value(credit)


def _parts(units: Units) -> range:
    return range(int(units.part.max()) + 1)


def _written(credit: NDArray[np.float64]) -> str | list[float]:
    values = credit.tolist()
    return "".join(map(DIGITS.__getitem__, values)) if set(values) <= DIGITS.keys() else values


def _read(written: str | list[float]) -> NDArray[np.float64]:
    return np.array([CREDITS[digit] for digit in written] if isinstance(written, str) else written)
