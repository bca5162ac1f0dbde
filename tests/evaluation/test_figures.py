"""Evaluations, audits and runs as matplotlib figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from written_down import WrittenDown

from basereward import Comparison, ConfigError, audit, evaluate, plot_runs
from basereward.testing.planted import planted, planted_rows

ROWS = [
    Comparison(f"question {number} at $5", [f"long {number % 5}", f"short {4 - number % 5}"], ranks=[1, 2])
    for number in range(20)
]


def test_an_evaluation_has_the_plots_of_its_report() -> None:
    figures = evaluate(WrittenDown(), ROWS).figures()
    assert list(figures) == ["margins", "calibration", "accuracy_by_length"]
    assert all(isinstance(figure, Figure) for figure in figures.values())
    # The last word is the reward: margins 2 k - 4 for k = 0 to 4, each of a fifth of 20 pairs.
    bars = {
        round(bar.get_x() + bar.get_width() / 2): bar.get_height()
        for bar in figures["margins"].axes[0].patches
        if bar.get_height()
    }
    assert sorted(bars.values()) == [4.0] * 5


def test_an_audit_has_its_own_and_those_of_its_pairs() -> None:
    figures = audit(planted("hedging", 0), planted_rows(60, 0)).figures()
    assert {"ablations", "shortcuts", "coverage", "margins", "calibration"} <= set(figures)
    assert all(isinstance(figure, Figure) for figure in figures.values())


def test_runs_are_lines_of_one_figure(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        records = [{"kind": "step", "step": step, "loss": 1 / step} for step in (1, 2)]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    figure = plot_runs([str(tmp_path / "one"), tmp_path / "two"])
    [axes, *_] = figure.axes
    assert [line.get_label() for line in axes.lines] == ["one", "two"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 0.5], [1, 0.5]]
    with pytest.raises(ConfigError, match="metric los: no run has it; did you mean 'loss'"):
        plot_runs([tmp_path / "one"], metrics=["los"])
