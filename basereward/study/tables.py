"""The tables of a study: means with intervals, differences with tests, and published numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from basereward.reporting.tables import Cell, Row, Table
from basereward.stats.seeds import LEVEL, Estimate, PairedDifference, difference, holm
from basereward.study.results import Results
from basereward.study.spec import Study

NOTHING = "–"


@dataclass(frozen=True)
class StudyTables:
    """The numbers of a study's tables.

    Attributes:
        study: The study.
        results: Its results.
        estimates: The mean over seeds, by column and row.
        differences: From the baseline, by column and row; corrected for their number in each column.
        best: The row that is shown in bold, by column, where there is one.
    """

    study: Study
    results: Results
    estimates: Mapping[tuple[str, str], Estimate]
    differences: Mapping[tuple[str, str], PairedDifference]
    best: Mapping[str, str]

    @classmethod
    def of(cls, study: Study, results: Results) -> StudyTables:
        """Compute them."""
        names = row_names(study)
        baseline = study.cell(study.baseline).name
        estimates: dict[tuple[str, str], Estimate] = {}
        differences: dict[tuple[str, str], PairedDifference] = {}
        best = {}
        for column in study.columns:
            by_row: dict[str, PairedDifference] = {}
            baseline_seeds = set(results.seeds_of(column, baseline))
            for name in names:
                seeds = results.seeds_of(column, name)
                if seeds:
                    units = results.units[column]
                    values = list(map(units.value, results.unit_scores_of(column, name, seeds)))
                    estimates[column, name] = Estimate.of(values)
                if name != baseline and (both := [seed for seed in seeds if seed in baseline_seeds]):
                    pair = [results.unit_scores_of(column, row, both) for row in (name, baseline)]
                    by_row[name] = difference(results.units[column], *pair)
            corrected = holm([item.p for item in by_row.values()])
            for (name, item), p in zip(by_row.items(), corrected, strict=True):
                by_row[name] = differences[column, name] = item.corrected(p)
            if (chosen := _best(baseline, names, column, estimates, by_row)) is not None:
                best[column] = chosen
        return cls(study, results, estimates, differences, best)

    def table(self) -> Table:
        """Return the table of means, beside the published numbers."""
        study = self.study
        printed = list(dict.fromkeys(title for item in study.published for title in item.values))
        rows = []
        for name, labels in _labelled(study):
            cells = [Cell(label) for label in labels]
            for column in study.columns:
                text = _mean(self.estimates.get((column, name)), self.differences.get((column, name)))
                cells.append(Cell(text, self.best.get(column) == name))
            values = published_of(study, name)
            cells += [Cell(str(values[title]) if title in values else "") for title in printed]
            rows.append(Row(cells))
        return Table(
            [*study.axes, *study.columns, *(f"in print: {title}" for title in printed)], rows, len(study.axes)
        )

    def difference_table(self, column: str) -> Table:
        """Return the table of one column's differences from the baseline."""
        rows = []
        for name, labels in _labelled(self.study):
            if (item := self.differences.get((column, name))) is not None:
                interval = f"{100 * item.low:+.2f} to {100 * item.high:+.2f}"
                numbers = [f"{100 * item.value:+.2f}", NOTHING if math.isnan(item.low) else interval]
                numbers += [_p(item.p), _p(item.adjusted), str(item.num_seeds)]
                rows.append(Row([*map(Cell, labels), *(Cell(text, item.is_significant) for text in numbers)]))
        titles = [*self.study.axes, f"{column}: difference", "95 % interval", "p", "p (Holm)", "seeds"]
        return Table(titles, rows, len(self.study.axes))

    def counts(self) -> list[str]:
        """Return the counts of the paradigms, such as of verdicts that could not be read, as sentences."""
        counts: dict[tuple[str, str], dict[str, list[float]]] = {}
        for run in self.results.runs:
            for source, numbers in run.facts.get("statistics", {}).items():
                for name, value in numbers.items():
                    counts.setdefault((run.row, source), {}).setdefault(name, []).append(value)
        return [
            f"{row}, {source}, mean over the runs: "
            + ", ".join(f"{name} {math.fsum(values) / len(values):.4g}" for name, values in numbers.items())
            for (row, source), numbers in counts.items()
        ]

    def notes(self) -> list[str]:
        """Return notes on how to read the tables."""
        study = self.study
        numbers = sorted({estimate.num for estimate in self.estimates.values()})
        seeds = " or ".join(map(str, numbers)) or "no"
        notes = [
            f"Percent: the mean over {seeds} seeds ± half the width of its 95 % interval over seeds "
            "(Student's t).",
            f"The baseline is {study.cell(study.baseline).name}. † differs from it significantly: "
            f"p < {LEVEL:g} after Holm's correction for all rows of the column, by a paired test on the same "
            "held-out units and seeds, which counts the chance in both.",
            "Bold: the best of a column, only where it is significantly better than the baseline; the "
            "baseline, only where it is significantly better than every other row.",
        ]
        if study.published:
            notes.append(f"In print: {study.source}." if study.source else "In print: as published.")
        left_out = [
            f"{num:,} comparisons of {source} are left out, which not every row could score."
            for source, num in self.results.num_left_out.items()
            if num
        ]
        return [*notes, *study.notes, *left_out, *self.counts()]


def row_names(study: Study) -> list[str]:
    """Return the names of all rows: cells, then ensembles."""
    return [*(cell.name for cell in study.rows), *(row.label for row in study.ensembles)]


def published_of(study: Study, name: str) -> dict[str, float]:
    """Return the published numbers of a row."""
    values: dict[str, float] = {}
    for item in study.published:
        label = item.cell.get("ensemble")
        if name == (", ".join(item.cell[axis] for axis in study.axes) if label is None else label):
            values |= item.values
    return values


def _labelled(study: Study) -> list[tuple[str, list[str]]]:
    """Return each row's name and its label cells."""
    width = len(study.axes)
    cells = [(cell.name, list(cell.labels.values())) for cell in study.rows]
    return cells + [(row.label, [row.label, *[""] * (width - 1)]) for row in study.ensembles]


def _best(
    baseline: str,
    names: Sequence[str],
    column: str,
    estimates: Mapping[tuple[str, str], Estimate],
    differences: Mapping[str, PairedDifference],
) -> str | None:
    scored = [name for name in names if (column, name) in estimates]
    if not scored:
        return None
    first = max(scored, key=lambda name: estimates[column, name].value)
    if first != baseline:
        return first if first in differences and differences[first].is_significant else None
    is_alone = bool(differences) and all(item.is_significant for item in differences.values())
    return first if is_alone else None


def _mean(estimate: Estimate | None, item: PairedDifference | None) -> str:
    if estimate is None:
        return NOTHING
    half = "" if math.isnan(estimate.half) else f" ± {100 * estimate.half:.1f}"
    return f"{100 * estimate.value:.1f}{half}{' †' if item is not None and item.is_significant else ''}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
