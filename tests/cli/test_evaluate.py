"""`basereward evaluate`, with a tiny random model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from basereward import RewardModel, cli
from basereward.data import read_comparisons
from basereward.evaluation import pair_metrics

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(12):
        tiny.image(56, 56, number).save(tmp_path / f"{number}.png")
        responses = [tiny.sentence(number * 10 + offset, 2 + offset) for offset in range(3)]
        rows.append(
            {
                "prompt": "what is it",
                "images": [f"{number}.png"],
                "responses": responses,
                "ratings": [3, 1, 1],
            }
        )
    path = tmp_path / "pets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    return path


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    return line.removeprefix("basereward: error: ")


@pytest.mark.usefixtures("drawn_figures")
def test_the_table_the_json_and_the_report_have_the_same_numbers(
    model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparisons = list(read_comparisons(data))
    expected = pair_metrics(comparisons, RewardModel.load(model_dir).score(comparisons))
    output = tmp_path / "report"
    arguments = ["evaluate", str(model_dir), "--data", str(data), "--output", str(output)]
    assert cli.main([*arguments, "--quiet"]) == 0
    shown = capsys.readouterr()
    accuracy = f"{expected['accuracy']:.3f} ({expected['low']:.3f} to {expected['high']:.3f})"
    first, *rest = shown.out.splitlines()
    assert first.split("  ")[0] == "pair accuracy"
    assert accuracy in first
    assert "24 pairs" in first
    assert any("ties in the data" in line for line in rest)
    report = json.loads((output / "report.json").read_text())
    assert report["model"] == str(model_dir)
    assert {name: report[name] for name in ("accuracy", "low", "high")} == pytest.approx(
        {name: expected[name] for name in ("accuracy", "low", "high")}
    )
    assert shown.err.splitlines() == [
        f"1 row was rejected, the first: {data}:13: is not JSON: Expecting value at column 1; "
        f"all in {output}/rejected.jsonl",
        f"report: {output}/report.html",
    ]
    assert cli.main([*arguments[:4], "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(expected["accuracy"])


def test_a_dataset_component_and_its_options_may_be_named(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "what", "chosen": "a cat", "rejected": "dog", "margin": 1}) + "\n")
    arguments = [
        "evaluate",
        str(model_dir),
        "--data",
        str(path),
        "--dataset",
        "trl",
        "--option",
        "source=set",
    ]
    assert cli.main([*arguments, "--gaps", "2,1", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["by_source"]) == ["set"]
    assert list(report["by_gap"]) == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --data PATH, or --dataset NAME for a dataset that needs none"),
        (["--data", "none.jsonl"], "none.jsonl: no such file"),
        (
            ["--data", "{data}", "--option", "a=1"],
            "dataset 'basereward' has no option 'a'; "
            "options: source, split, config, media_dir, media_roots, media_hosts, ignored_columns",
        ),
        (["--data", "{data}", "--dataset", "trl", "--option", "a"], "--option a: write KEY=VALUE"),
        (
            ["--data", "{data}", "--dataset", "trl", "--option", "sorce=a"],
            "dataset 'trl' has no option 'sorce'; did you mean 'source'? options: source, split, "
            "config, media_dir, media_roots, media_hosts, ignored_columns",
        ),
        (["--data", "{data}", "--gaps", "a"], "--gaps a: write numbers, such as 0.5,1.5,3"),
        (["--data", "{data}", "--output", "{data}"], "--output {data}: can't be made: File exists"),
        (
            ["--data", "{data}", "--on-bad-row", "fail", "--quiet"],
            "{data}:13: is not JSON: Expecting value at column 1",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_two(
    model_dir: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(data.parent)
    filled = [argument.format(data=data) for argument in arguments]
    assert error(capsys, model_dir, *filled) == message.format(data=data)


def test_a_report_replaces_reports_and_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "notes"
    output.mkdir()
    (output / "report.md").write_text("mine")
    arguments = ["longest", "--data", data, "--output", output, "--quiet"]
    message = error(capsys, *arguments)
    assert message.startswith(f"--output {output} holds report.md and no .basereward-report, so that")
    assert [path.name for path in output.iterdir()] == ["report.md"]
    assert (output / "report.md").read_text() == "mine"
    (output / "report.md").rename(output / "thesis.md")
    for _ in range(2):  # beside other files, and over an earlier report
        assert cli.main(["evaluate", *map(str, arguments)]) == 0
        assert (output / "thesis.md").read_text() == "mine"
        assert "pairs" in (output / "report.md").read_text()


def test_json_replaces_reports_and_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "notes.json"
    arguments = ["longest", "--data", data, "--quiet", "--json", target]
    for text in ("mine", "[1]", "{}", '{"accuracy": 1, "model": "mine"}'):
        target.write_text(text)
        assert error(capsys, *arguments).startswith(
            f"--json {target} exists and is no report of this command"
        )
        assert target.read_text() == text
    rows = data.read_bytes()
    assert "is no report of this command" in error(capsys, *arguments[:-1], data)
    assert data.read_bytes() == rows
    assert error(capsys, *arguments[:-1], tmp_path) == f"--json {tmp_path} is a directory; name a file"
    target.write_text("")
    for _ in range(2):
        assert cli.main(["evaluate", *map(str, arguments)]) == 0
        assert json.loads(target.read_text())["num_pairs"] == 24
    saved = tmp_path / "saved"
    assert cli.main(["evaluate", "longest", "--data", str(data), "--quiet", "--output", str(saved)]) == 0
    target.unlink()
    for _ in range(2):
        compared = ["evaluate", "--compare", str(saved), str(saved), "--json", str(target)]
        assert cli.main(compared) == 0


def test_no_report_is_written_into_a_model(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(model_dir.rglob("*"))
    for option, place in [
        ("--output", model_dir),
        ("--output", model_dir / "report"),
        ("--json", model_dir / "report.json"),
        ("--json", model_dir / "config.json"),
    ]:
        assert error(capsys, "longest", "--data", data, option, place) == (
            f"{option} {place}: {model_dir.resolve()} is the directory of a model; name another place"
        )
    assert sorted(model_dir.rglob("*")) == before
