"""Outputs that a user names replace no input and no model, and nothing that BaseReward has not written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import runs

from basereward import ConfigError, RewardModel
from basereward.cli import main
from basereward.config import Component
from basereward.plugins.plugin_manager import manager
from basereward.training import run_directory

RECORD = {
    "kind": "step",
    "step": 1,
    "loss": 0.5,
    "accuracy": 0.5,
    "lr": {"head": 0.1},
    "pairs_per_second": 3.0,
}

STUDY = """
title = "Tiny"
output = "study"
seeds = [0]
baseline = { layers = "1" }
[run]
backbone = "tiny"
[[run.data.train]]
name = "basereward"
path = "rows.jsonl"
[[run.data.eval]]
name = "basereward"
path = "rows.jsonl"
[axes.layers]
1.head.num_layers = 1
2.head.num_layers = 2
"""

RUN = """
output = "run"
backbone = "tiny"
[[data.train]]
name = "basereward"
path = "rows.jsonl"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory with rows, a log, a run file, a study and a model; `theirs` is somebody's file."""
    monkeypatch.chdir(tmp_path)
    runs.write_rows(tmp_path / "rows.jsonl", runs.rows(8, seed=0))
    os.link("rows.jsonl", "link.jsonl")
    Path("log.jsonl").write_text(json.dumps(RECORD) + "\n")
    Path("theirs").write_text("theirs")
    Path("study.toml").write_text(STUDY)
    Path("run.toml").write_text(RUN)
    RewardModel.build(backbone=Component("tiny", {})).save(tmp_path / "model")
    return tmp_path


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


CURATE = ("data", "curate", "rows.jsonl", "--step", "drop-identical", "--quiet")
SCORE = ("score", "model", "--input", "rows.jsonl", "--quiet")

REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "an image of somebody": (("plot", "log.jsonl", "--output", "theirs"), "was not written by this command"),
    "a log as an image": (("plot", "log.jsonl", "--output", "log.jsonl", "--overwrite"), "is the input"),
    "an image in a model": (("plot", "log.jsonl", "--output", "model/a.png"), "directory of a model"),
    "a page of somebody": (
        ("data", "inspect", "rows.jsonl", "--quiet", "--output", "theirs"),
        "was not written by this command",
    ),
    "rows as a page": (
        ("data", "inspect", "rows.jsonl", "--quiet", "--output", "rows.jsonl", "--overwrite"),
        "is the input",
    ),
    "rows converted in place": (
        ("data", "convert", "rows.jsonl", "--output", "rows.jsonl", "--overwrite"),
        "is the input",
    ),
    "rows by another name": ((*CURATE, "--output", "link.jsonl", "--overwrite"), "is the input"),
    "rows that are compared with": (
        (
            "data",
            "contamination",
            "link.jsonl",
            "--against",
            "rows.jsonl",
            "--output",
            "rows.jsonl",
            "--overwrite",
        ),
        "is the input",
    ),
    "rows of a mixture": (
        ("data", "mix", "run.toml", "--held-out", "rows.jsonl", "--num-held-out", "2", "--overwrite"),
        "is the input; give --held-out",
    ),
    "rows in a model": (
        ("data", "convert", "rows.jsonl", "--output", "model/a.jsonl"),
        "directory of a model",
    ),
    "reports in a model": ((*CURATE, "--report", "model/report"), "directory of a model"),
    "selected rows": (
        ("best-of-n", "model", "rows.jsonl", "--output", "link.jsonl", "--overwrite"),
        "is the input",
    ),
    "rewards of a model's file": (
        (*SCORE, "--output", "model/reward_config.json", "--overwrite"),
        "directory of a model",
    ),
    "rewards as rows": ((*SCORE, "--output", "link.jsonl", "--overwrite"), "is the input"),
    "tables in a model": (
        ("score-shards", "model", "rows.jsonl", "--output", "model/out"),
        "directory of a model",
    ),
    "an export in its model": (("export", "model", "--output", "model/out"), "directory of a model"),
    "an export of its model": (("export", "model", "--output", "model"), "is the input"),
    "an ensemble of its member": (("ensemble", "model", "--output", "model", "--overwrite"), "is the input"),
    "an ensemble that holds its member": (
        ("ensemble", "model", "--output", ".", "--overwrite"),
        "holds the input model",
    ),
    "an import of a model": (("import", "source", "--output", "model"), "exists; --overwrite replaces it"),
    "an import of itself": (("import", "model", "--output", "model", "--overwrite"), "is the input"),
    "a run in a model": (("train", "run.toml", "--set", "output=model/run"), "directory of a model"),
    "a study in a model": (("study", "study.toml", "--set", "output=model/study"), "directory of a model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_input_no_model_and_nothing_of_somebody_else_is_replaced(
    place: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, reason = REFUSED[case]
    before = content(place)
    assert main(list(command)) == 2
    assert reason in capsys.readouterr().err
    assert content(place) == before


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_an_image_replaces_its_like_and_what_it_is_told_to(place: Path, name: str) -> None:
    command = ["plot", "log.jsonl", "--output", name]
    for _ in range(2):
        assert main(command) == 0
    Path(name).write_text("theirs")
    assert main(command) == 2
    assert Path(name).read_text() == "theirs"
    assert main([*command, "--overwrite"]) == 0
    assert b"BaseReward" in Path(name).read_bytes()


def test_a_page_replaces_its_like_and_what_it_is_told_to(place: Path) -> None:
    command = ["data", "inspect", "rows.jsonl", "--quiet", "--output", "page.html"]
    for _ in range(2):
        assert main(command) == 0
    Path("page.html").write_text("theirs")
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert "theirs" not in Path("page.html").read_text()


@pytest.mark.parametrize("name", ["report.json", "rejected.jsonl"])
def test_reports_of_rows_replace_their_like_alone(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main([*CURATE, "--report", "report"]) == 0
    Path("others").mkdir()
    Path("others", name).write_text("theirs")
    assert main([*CURATE, "--report", "others"]) == 2
    assert f"--report others holds {name} and no .basereward-report" in capsys.readouterr().err
    assert content(place / "others") == {str(place / "others" / name): b"theirs"}


@pytest.mark.parametrize("name", ["results.jsonl", "table.md", "plots"])
def test_a_study_replaces_its_like_alone(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study").mkdir()
    Path("study", name).write_text("theirs")
    assert main(["study", "study.toml", "--quiet"]) == 2
    assert f"study holds {name} and no .basereward-study" in capsys.readouterr().err
    assert content(place / "study") == {str(place / "study" / name): b"theirs"}


def owned(directory: Path) -> None:
    """Write one file of each kind that a run writes into its directories."""
    for name in (
        "checkpoint/step-00000001/state.json",
        "checkpoint/step-00000001/model-00001.safetensors",
        "checkpoint/unfinished-step-00000002/model.safetensors",
        "tensorboard/events.out.tfevents.1.host.2.0",
        "plots/training.png",
        "adapter/adapter_model.safetensors",
        "evaluation/report.json",
        "evaluation/members/a/rewards.jsonl",
        "evaluation/plots/margins.png",
        "evaluation/.report.md.0123456789abcdef.new",
    ):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ours")


THEIRS = (
    "model/notes.md",
    "last/sub/x",
    "plots/mine.png",
    "checkpoint/step-00000001/notes.txt",
    "checkpoint/backup.tar",
    "evaluation/members/a/notes",
    "tensorboard/x",
    "adapter/README.md",
    "log.jsonl/x",
)


@pytest.mark.parametrize("name", THEIRS)
def test_a_run_is_not_removed_with_a_file_of_somebody_else(tmp_path: Path, name: str) -> None:
    run = runs.config(tmp_path / "run", tmp_path / "no-model", tmp_path / "no-data.jsonl")
    directory = Path(run.output)
    with run_directory.locked(directory):
        run_directory.prepare(run, manager(), resume=False, overwrite=False)
        owned(directory)
        RewardModel.build(backbone=Component("tiny", {})).save(directory / "model")
        theirs = directory / name
        theirs.parent.mkdir(parents=True, exist_ok=True)
        theirs.write_text("theirs")
        before = content(directory)
        with pytest.raises(ConfigError, match=rf"^output: {re.escape(str(theirs))} was not written by a run"):
            run_directory.clear(directory)
        assert content(directory) == before
        run_directory.discard(directory, ["checkpoint", "model", "last", "adapter"])
        assert theirs.read_text() == "theirs"
        theirs.unlink()
        for parent in theirs.parents:
            if parent == directory or any(parent.iterdir()):
                break
            parent.rmdir()
        run_directory.clear(directory)
    assert {path.name for path in directory.iterdir()} == {run_directory.LOCK_FILE}


def test_what_is_no_file_in_the_place_of_a_runs_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    run = runs.config(tmp_path / "run", tmp_path / "no-model", tmp_path / "no-data.jsonl")
    with run_directory.locked(tmp_path / "run"):
        os.mkfifo(tmp_path / "run" / "log.jsonl")
        with pytest.raises(
            ConfigError, match=r"run/log\.jsonl is neither a file nor a directory; remove it$"
        ):
            run_directory.prepare(run, manager(), resume=True, overwrite=False)


NO_PATHS = {
    "links in a circle": "loop",
    "within links in a circle": "loop/x",
    "a NUL": "a\0b",
    "too long": "n" * 5000,
}

COMMANDS: dict[str, Sequence[str]] = {
    "an image": ("plot", "log.jsonl", "--output", "{}/x.png"),
    "an image's run": ("plot", "{}"),
    "a page": ("data", "inspect", "rows.jsonl", "--quiet", "--output", "{}"),
    "rows": ("data", "convert", "{}", "--output", "out.jsonl"),
    "converted rows": ("data", "convert", "rows.jsonl", "--output", "{}/x.jsonl"),
    "reports": (*CURATE, "--report", "{}"),
    "rewards": (*SCORE, "--output", "{}"),
    "tables": ("score-shards", "model", "rows.jsonl", "--output", "{}"),
    "an import": ("import", "{}", "--output", "imported"),
    "an imported model": ("import", "source", "--output", "{}"),
    "an export": ("export", "model", "--output", "{}"),
    "an ensemble": ("ensemble", "model", "--output", "{}"),
    "a member": ("ensemble", "model", "{}", "--output", "both"),
    "an evaluation": ("evaluate", "model", "--data", "rows.jsonl", "--output", "{}"),
    "a served model": ("serve", "{}"),
    "keys": ("serve", "model", "--api-key-file", "{}"),
    "a run": ("train", "run.toml", "--quiet", "--set", "output={}"),
    "a run's cache": ("train", "run.toml", "--quiet", "--set", "cache={}/x"),
    "a run's base": ("train", "run.toml", "--quiet", "--set", "base={}"),
}


@pytest.mark.parametrize("path", NO_PATHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_path_is_an_error_of_ours(
    place: Path, command: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.symlink("loop", "loop")
    before = content(place)
    arguments = [argument.format(NO_PATHS[path]) for argument in COMMANDS[command]]
    if command == "a run's base":
        Path("run.toml").write_text(f"base = {json.dumps(NO_PATHS[path])}\n{RUN}")
        before = content(place)
        arguments = arguments[:3]
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("basereward: error: ")
    assert {name: held for name, held in content(place).items() if "run/" not in name} == before
