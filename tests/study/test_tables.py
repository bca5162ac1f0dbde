"""Tables of results made by hand: what is bold, what is marked, and how each format has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from basereward.stats.metric import unit_mean
from basereward.study import Study, load_study
from basereward.study.report import write_report
from basereward.study.results import Columns, Results, RunResult
from basereward.study.tables import StudyTables

NUM = 40
COLUMN = "held-out pairs"


@pytest.fixture
def study(tmp_path: Path, write_study: Callable[..., Path]) -> Study:
    """Return a study of two rows."""
    more = """
[[published]]
cell = { layers = "2" }
values = { "VLRB" = 76.5 }
"""
    return load_study(write_study(tmp_path, more))


def results_of(rights: dict[str, Sequence[int]]) -> Results:
    """Return results of rows that have the first so many of 40 units right, seed by seed."""
    columns = Columns()
    runs = []
    for row, numbers in rights.items():
        for seed, right in enumerate(numbers):
            unit_scores = (np.arange(NUM) < right).astype(float)
            value = columns.add(COLUMN, row, seed, unit_mean(unit_scores, np.arange(NUM), np.zeros(NUM)))
            runs.append(RunResult(row, {"layers": row}, seed, {COLUMN: value}, {"seconds": 1.0}))
    return Results(runs, columns.units, columns.unit_scores, {"held-out": 0})


def test_the_best_is_bold_where_it_is_significantly_better(study: Study) -> None:
    # 20 and 20 of 40 against 32 and 32: twelve units more, without a difference between the seeds.
    tables = StudyTables.of(study, results_of({"1": [20, 20], "2": [32, 32]}))
    assert tables.best == {COLUMN: "2"}
    assert tables.table().markdown().splitlines() == [
        "| layers | held-out pairs | in print: VLRB |",
        "|---|---:|---:|",
        "| 1 | 50.0 ± 0.0 |  |",
        "| 2 | **80.0 ± 0.0 †** | 76.5 |",
    ]


def test_the_best_is_plain_where_chance_may_have_made_it(study: Study) -> None:
    tables = StudyTables.of(study, results_of({"1": [20, 20], "2": [21, 21]}))
    # One unit of 40 more: 2.5 points, whose error by units is 2.5 points too.
    found = tables.differences[COLUMN, "2"]
    assert (found.value, found.is_significant) == (pytest.approx(0.025), False)
    assert tables.best == {}


def test_the_baseline_is_bold_where_it_beats_all_others(study: Study) -> None:
    assert StudyTables.of(study, results_of({"1": [32, 32], "2": [20, 20]})).best == {COLUMN: "1"}
    assert StudyTables.of(study, results_of({"1": [21, 21], "2": [20, 20]})).best == {}


def test_a_row_is_compared_on_the_seeds_that_both_have(study: Study) -> None:
    tables = StudyTables.of(study, results_of({"1": [20, 30], "2": [32]}))
    found = tables.differences[COLUMN, "2"]
    assert (found.num_seeds, found.value) == (1, pytest.approx(12 / 40))
    cells = [row.texts[1] for row in tables.table().rows]
    # Seeds of 50 % and 75 %: t of 12.7062 times 12.5.
    assert cells == ["62.5 ± 158.8", "80.0 †"]


def test_a_row_without_results_is_empty(study: Study) -> None:
    tables = StudyTables.of(study, results_of({"2": [20, 20]}))
    assert [row.texts for row in tables.table().rows] == [
        ["1", "–", ""],
        ["2", "50.0 ± 0.0", "76.5"],
    ]
    assert tables.difference_table(COLUMN).rows == []


def test_stored_results_make_the_same_report(study: Study, tmp_path: Path) -> None:
    results = results_of({"1": [20, 21], "2": [32, 30]})
    written = []
    for name in ("first", "second"):
        results.save(tmp_path / name)
        write_report(study, results, tmp_path / name)
        results = Results.load(tmp_path / name)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        written.append({path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert list(written[0]) == [
        "plots/held-out-pairs.png",
        "plots/held-out-pairs.svg",
        "report.html",
        "results.jsonl",
        "table.md",
        "table.tex",
        "unit_scores.json.gz",
    ]


def test_the_report_names_runs_without_a_result(study: Study, tmp_path: Path) -> None:
    found = results_of({"1": [20, 20], "2": [32]})
    lost = RunResult("2", {"layers": "2"}, 1, {}, {}, "RuntimeError: out of paper")
    results = Results([*found.runs, lost], found.units, found.unit_scores, {"held-out": 3})
    write_report(study, results, tmp_path)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.endswith("## Without a result: 1\n\n- 2, seed 1: RuntimeError: out of paper\n")
    assert "- 3 comparisons of held-out are left out, which not every row could score.\n" in text


def test_what_a_paradigm_counted_stands_below_its_numbers(study: Study) -> None:
    found = results_of({"1": [20, 20], "2": [32, 30]})
    counted = [{"held-out": {"parse_failure_rate": rate}} for rate in (0.25, 0.5)]
    judged = [
        RunResult(run.row, run.labels, run.seed, run.values, {"statistics": counted[run.seed]})
        for run in found.runs
        if run.row == "2"
    ]
    results = Results([*found.runs[:2], *judged], found.units, found.unit_scores, found.num_left_out)
    assert StudyTables.of(study, results).counts() == [
        "2, held-out, mean over the runs: parse_failure_rate 0.375"
    ]
