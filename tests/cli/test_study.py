"""`basereward study`: the command that lists, runs and reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import runs

from basereward.cli import main

STUDY = """
title = "Tiny"
output = "out"
seeds = [0]
keep = "rewards"
baseline = { layers = "1" }

[run]
backbone = "tiny"

[[run.data.train]]
name = "basereward"
path = "rows.jsonl"

[[run.data.eval]]
name = "basereward"
path = "rows.jsonl"

[run.train]
batch_size = 8

[axes.layers]
1.head.num_layers = 1
2.head.num_layers = 2
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a study and its data."""
    monkeypatch.chdir(tmp_path)
    runs.write_rows(tmp_path / "rows.jsonl", runs.rows(8, seed=0))
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("drawn_figures")
def test_a_study_is_listed_run_and_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "study.toml", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["to do  1, seed 0", "to do  2, seed 0"]

    assert main(["study", "study.toml", "--quiet", "--jobs", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["2 runs done, 0 were before", f"report: {Path('out/report.html')}"]
    assert captured.out.splitlines()[0].split() == ["layers", "held-out", "pairs"]
    assert {path.name for path in (place / "out").iterdir()} == {
        ".basereward-study",
        "unit_scores.json.gz",
        "plots",
        "report.html",
        "results.jsonl",
        "runs",
        "table.md",
        "table.tex",
    }

    # Stored results are enough for the tables.
    table = (place / "out" / "table.md").read_text(encoding="utf-8")
    shutil.move(place / "out", place / "stored")
    (place / "stored" / "table.md").unlink()
    assert main(["study", "study.toml", "--results", "stored"]) == 0
    assert (place / "stored" / "table.md").read_text(encoding="utf-8") == table


def test_a_run_that_fails_is_told_and_ends_in_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change = '\n[axes.layers.bad]\ndata.train = [{ name = "basereward", path = "none.jsonl" }]\n'
    (place / "study.toml").write_text(STUDY + change, encoding="utf-8")
    assert main(["study", "study.toml", "--quiet", "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[:2] == [
        "2 runs done, 0 were before",
        "failed: bad, seed 0: none.jsonl: no such file",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study.toml", "--jobs", "0"], "--jobs is 0; allowed: 1 and more"),
        (["none.toml"], "none.toml: can't be read: No such file or directory"),
        (
            ["study.toml", "--results", "none"],
            "none holds no results of a study (No such file or directory: none/results.jsonl)",
        ),
    ],
)
def test_bad_arguments_are_told(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["study", *arguments]) == 2
    assert capsys.readouterr().err == f"basereward: error: {message}\n"
