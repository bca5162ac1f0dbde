"""`basereward plot`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from basereward.cli import main

pytestmark = pytest.mark.usefixtures("drawn_figures")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the directory of a run of three records, a fourth of which is being written."""
    records = [
        {
            "kind": "step",
            "step": 1,
            "loss": 0.7,
            "accuracy": 0.5,
            "lr": {"head": 0.1},
            "pairs_per_second": 3.0,
        },
        {"kind": "evaluation", "step": 1, "accuracy": 0.5},
        {"kind": "step", "step": 2, "loss": 0.6, "accuracy": 0.6, "lr": {"head": 0.1}, "grad_norm": 1.0},
    ]
    directory = tmp_path / "run"
    directory.mkdir()
    text = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "log.jsonl").write_text(text + '{"kind": "st')
    return directory


def test_runs_with_other_keys_and_half_a_line_are_drawn(
    run_dir: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "log.jsonl").write_text('{"kind": "step", "step": 1, "loss": 0.5}\n')
    assert main(["plot", str(run_dir), "old", "--smoothing", "0.9", "--x", "pairs"]) == 0
    assert capsys.readouterr().out == "runs.png\n"
    # Five plots in three rows of two, a line of names, 120 dots to an inch.
    with Image.open("runs.png") as image:
        size = image.size
    assert size == (1200, (3 * 260 + 25 + 40) * 120 // 100)
    assert main(["plot", "old", "--output", "one.svg"]) == 0
    svg = Path("one.svg").read_text()
    assert svg.startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "grad_nrm"], "metric grad_nrm: no run has it; did you mean 'grad_norm'? there are: "),
        (["--smoothing", "1"], "smoothing is 1; allowed: from 0 up to, not including, 1\n"),
        (["--output", "x.foo"], "--output x.foo: Format 'foo' is not supported"),
        (["nowhere"], "nowhere isn't there; give the directory of a run, or its log.jsonl\n"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    run_dir: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    assert main(["plot", str(run_dir), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"basereward: error: {message}")


def test_a_run_without_a_record_has_nothing_to_draw(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "log.jsonl").touch()
    assert main(["plot", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"basereward: error: {tmp_path}: no record of a step yet, so nothing to draw\n"
    )


def test_a_run_of_one_record_is_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.jsonl").write_text('{"kind": "step", "step": 1, "loss": 0.5}\n')
    Path("two.jsonl").write_text(
        '{"kind": "step", "step": 1, "loss": 0.5}\n{"kind": "step", "step": 2, "loss": 0.5}\n'
    )
    for name in ("one", "two"):
        assert main(["plot", f"{name}.jsonl", "--output", f"{name}.svg"]) == 0
    # A mark is filled with the colour of the run, at the point and in the legend; a line is not.
    assert [Path(f"{name}.svg").read_text().count("fill: #2a6f97") for name in ("one", "two")] == [2, 0]
