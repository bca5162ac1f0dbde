"""The plots of a study: for each column the mean of every row, its interval over seeds, and the seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basereward.reporting.plots import COLOURS, NEUTRAL, figure_of, label_of, save_figure
from basereward.study.results import Results
from basereward.study.spec import Study
from basereward.study.tables import StudyTables, row_names

PLOTS = "plots"
FORMATS = ("png", "svg")


def save(study: Study, results: Results, tables: StudyTables, directory: Path) -> list[Path]:
    """Draw every column, and return the PNG files."""
    (directory / PLOTS).mkdir(parents=True, exist_ok=True)
    drawn = []
    for column in study.columns:
        if any((column, name) in tables.estimates for name in row_names(study)):
            is_grid = len(study.axes) == 2 and not study.ensembles
            draw = _draw_grid if is_grid else _draw_rows
            figure = draw(study, results, tables, column)
            stem = re.sub(r"[^A-Za-z0-9]+", "-", column).strip("-").lower()
            for suffix in FORMATS:
                metadata = {"Date": None} if suffix == "svg" else {}
                save_figure(figure, directory / PLOTS / f"{stem}.{suffix}", metadata=metadata)
            drawn.append(directory / PLOTS / f"{stem}.png")
    return drawn


def _draw_grid(study: Study, results: Results, tables: StudyTables, column: str) -> Any:
    """Draw the labels of the first axis from left to right, and those of the second as lines."""
    along, across = study.axes.values()
    names = list(study.axes)
    figure, axes = figure_of(study.title, _subtitle(study, column), width=7.6, height=4.6)
    step = 0.7 / len(across)
    for number, label in enumerate(across):
        shift = step * (number - (len(across) - 1) / 2)
        cells = [cell for cell in study.rows if cell.labels[names[1]] == label]
        places = [list(along).index(cell.labels[names[0]]) + shift for cell in cells]
        colour = COLOURS[number % len(COLOURS)]
        means = _draw(axes, results, tables, column, [cell.name for cell in cells], places, colour, "x")
        axes.plot(*means, color=colour, marker="o", linewidth=1, alpha=0.9, label=label_of(label))
    _draw_baseline(axes.axhline, study, tables, column)
    axes.set_xticks(range(len(along)), [label_of(label) for label in along])
    axes.set_xlabel(names[0])
    axes.set_ylabel("percent")
    axes.legend(title=names[1], loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def _draw_rows(study: Study, results: Results, tables: StudyTables, column: str) -> Any:
    """Draw the rows one below the other."""
    names = [name for name in row_names(study) if (column, name) in tables.estimates]
    figure, axes = figure_of(study.title, _subtitle(study, column), width=7.6, height=1.7 + 0.36 * len(names))
    places = list(range(len(names)))
    means = _draw(axes, results, tables, column, names, places, COLOURS[0], "y")
    axes.plot(*reversed(means), color=COLOURS[0], marker="o", linestyle="none")
    _draw_baseline(axes.axvline, study, tables, column)
    axes.set_yticks(places, [label_of(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("percent")
    return figure


def _draw(
    axes: Any,
    results: Results,
    tables: StudyTables,
    column: str,
    names: Sequence[str],
    places: Sequence[float],
    colour: str,
    side: str,
) -> tuple[list[float], list[float]]:
    """Draw seeds and intervals of rows, and return the places and values of their means."""
    means: tuple[list[float], list[float]] = ([], [])
    for name, place in zip(names, places, strict=True):
        estimate = tables.estimates.get((column, name))
        if estimate is None:
            continue
        means[0].append(place)
        means[1].append(100 * estimate.value)
        values = [
            100 * run.values[column] for run in results.runs if run.row == name and column in run.values
        ]
        seeds = ([place] * len(values), values)
        axes.scatter(
            *(seeds if side == "x" else reversed(seeds)), s=9, color=colour, alpha=0.35, linewidths=0
        )
        if not math.isnan(estimate.half):
            ends = (100 * (estimate.value - estimate.half), 100 * (estimate.value + estimate.half))
            lines = axes.vlines if side == "x" else axes.hlines
            lines(place, *ends, color=colour, linewidth=2.5, alpha=0.45)
    return means


def _draw_baseline(line: Any, study: Study, tables: StudyTables, column: str) -> None:
    estimate = tables.estimates.get((column, study.cell(study.baseline).name))
    if estimate is not None:
        line(100 * estimate.value, color=NEUTRAL, linewidth=1, linestyle="--", zorder=0)


def _subtitle(study: Study, column: str) -> str:
    baseline = study.cell(study.baseline).name
    return f"{column}; bars: 95 % interval over seeds, dots: seeds, dashed: {baseline}"
