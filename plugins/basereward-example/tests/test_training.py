"""A training uses the plugin's parts, and learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from basereward import train
from basereward.cli import main
from basereward.config import load_run

ROOT = Path(__file__).parents[1]


def test_the_run_file_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = train(load_run("run.toml", [f"output={tmp_path / 'run'}"]), progress=False)
    assert result.best is not None
    assert result.best["accuracy"] == 1.0
    steps = (tmp_path / "run" / "example.csv").read_text(encoding="utf-8").splitlines()
    assert steps[0] == "step,loss"
    assert len(steps) > 1


def test_the_command_prints_both_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example-lengths", str(ROOT / "rows.jsonl")]) == 0
    # Of 8 rows: a digit, and "I don't know." of 13 characters.
    assert capsys.readouterr().out == "8 pairs: 1.0 characters the better one, 13.0 the worse\n"
