"""Whole studies on the tiny backbone: done, killed, failed, resumed, gathered, joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import small
import torch
import troubled

from basereward import RewardModel
from basereward.cli import main
from basereward.config import Component
from basereward.evaluation.benchmarks.rewardbench import RewardBench
from basereward.evaluation.benchmarks.run import run_benchmark
from basereward.plugins import PluginManager
from basereward.study import PlannedRun, Study, load_study, planned_runs
from basereward.study.collect import collect
from basereward.study.results import Results
from basereward.study.run import StudyRun, run_study

MORE = """
[[ensembles]]
label = "mean of both"
members = [{ layers = "1" }, { layers = "2" }]
"""


@dataclass
class Place:
    """A study, and what is done with it."""

    study: Study
    runs: list[PlannedRun]
    plugins: PluginManager

    def run_study(self) -> StudyRun:
        """Run what is left."""
        return run_study(self.study, self.runs, self.plugins, num_jobs=2, progress=False)

    def collect(self) -> Results:
        """Return what was found."""
        return collect(self.study, self.runs, self.plugins)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, write_study: Callable[..., Path]) -> dict[str, Place]:
    """Return two studies that differ in their directory alone."""
    directory = tmp_path_factory.mktemp("studies")
    (directory / "trouble").mkdir()
    found = {}
    for name in ("troubled", "smooth"):
        path = write_study(directory, MORE, name)
        study, plugins = load_study(path, ["keep=rewards"]), PluginManager([troubled])
        found[name] = Place(study, planned_runs(study, plugins, path=path), plugins)
    return found


@pytest.fixture(scope="module")
def course(places: dict[str, Place]) -> list[tuple[StudyRun, Results]]:
    """Return what three calls of the same study found, the first of them with trouble."""
    place = places["troubled"]
    trouble = Path(place.study.output).parent / "trouble"
    for name in (troubled.KILL, troubled.FAIL):
        (trouble / name).touch()
    return [(place.run_study(), place.collect()) for _ in range(3)]


def test_what_fails_fails_alone(course: list[tuple[StudyRun, Results]]) -> None:
    conducted, results = course[0]
    assert (conducted.num_before, conducted.num_done) == (0, 2)
    assert sorted(conducted.failed.values()) == [
        "RuntimeError: out of paper",
        "its process was killed by SIGKILL",
    ]
    errors = [run.error for run in results.runs if run.error and run.labels]
    assert sorted(errors) == ["RuntimeError: out of paper", "has not been run to its end"]
    assert sum(bool(run.values) for run in results.runs if run.labels) == 2


def test_the_same_command_goes_on_with_what_is_left(course: list[tuple[StudyRun, Results]]) -> None:
    assert [(found.num_before, found.num_done, found.failed) for found, _ in course[1:]] == [
        (2, 2, {}),
        (4, 0, {}),
    ]


def test_killed_and_resumed_is_never_killed(
    course: list[tuple[StudyRun, Results]], places: dict[str, Place]
) -> None:
    smooth = places["smooth"]
    assert smooth.run_study().failed == {}
    results = smooth.collect()
    assert len(results.unit_scores) == 6  # two cells and an ensemble, two seeds each
    for (column, row, seed), unit_scores in results.unit_scores.items():
        assert course[-1][1].unit_scores[column, row, seed].tolist() == unit_scores.tolist()


def test_values_are_those_of_the_runs(
    course: list[tuple[StudyRun, Results]], places: dict[str, Place]
) -> None:
    results = course[-1][1]
    by_key = {(run.row, run.seed): run for run in results.runs}
    for planned in places["troubled"].runs:
        report = Path(planned.config.output, "evaluation", "report.json").read_text(encoding="utf-8")
        value = by_key[planned.cell.name, planned.seed].values["held-out pairs"]
        assert value == pytest.approx(json.loads(report)["accuracy"])


def test_an_ensembles_rewards_are_its_members_joined(
    course: list[tuple[StudyRun, Results]], places: dict[str, Place]
) -> None:
    def rewards(layers: str) -> list[list[float]]:
        [output] = [
            run.config.output
            for run in places["troubled"].runs
            if run.cell.labels == {"layers": layers} and run.seed == 1
        ]
        lines = Path(output, "evaluation", "rewards.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["rewards"] for line in lines]

    right = [
        [(first[0] + second[0]) > (first[other] + second[other]) for other in (1, 2)]
        for first, second in zip(rewards("1"), rewards("2"), strict=True)
    ]
    found = course[-1][1].unit_scores["held-out pairs", "mean of both", 1]
    assert found.tolist() == [float(one) for group in right for one in group]


def test_only_logs_and_rewards_are_kept_where_that_is_asked(
    course: list[tuple[StudyRun, Results]], places: dict[str, Place]
) -> None:
    for planned in places["troubled"].runs:
        names = {path.name for path in Path(planned.config.output).iterdir()}
        assert {"run.toml", "log.jsonl", "evaluation", "study.json"} <= names
        assert not {"model", "last", "checkpoint", "error.txt"} & names


def test_a_run_that_scored_nothing_is_not_called_unfinished(
    course: list[tuple[StudyRun, Results]], places: dict[str, Place]
) -> None:
    first, *others = places["troubled"].runs
    rewards = Path(first.config.output, "evaluation", "rewards.jsonl")
    written = rewards.read_bytes()
    try:
        rewards.write_bytes(b"")
        results = places["troubled"].collect()
    finally:
        rewards.write_bytes(written)
    by_key = {(run.row, run.seed): run for run in results.runs}
    silent = by_key[first.cell.name, first.seed]
    assert (silent.values, silent.error) == (
        {},
        "was run to its end and has a reward for no comparison; the reports in its directory say why",
    )
    assert silent.facts
    assert all(by_key[run.cell.name, run.seed].values for run in others)


AS_THEY_ARE = """
title = "As they are"
output = "{output}"
seeds = [0]
trains = false
held_out = {{}}
baseline = {{ model = "a" }}

[run]
backbone = "tiny"
data.train = [{{ name = "basereward", path = "nowhere" }}]

[axes.model]
a.init = "{a}"
b.init = "{b}"

[[benchmarks]]
name = "rewardbench"
path = "{rows}"
columns = {{ RewardBench = "overall" }}
"""


def test_models_that_are_there_are_evaluated_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("ab"):
        torch.manual_seed(number)
        RewardModel.build(backbone=Component("tiny")).save(tmp_path / name)
    rows = small.benchmark_options("rewardbench")(tmp_path)["path"]
    names = {"a": tmp_path / "a", "b": tmp_path / "b", "rows": rows, "output": tmp_path / "out"}
    path = tmp_path / "study.toml"
    path.write_text(AS_THEY_ARE.format(**names))
    before = sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "a").rglob("*"))
    assert main(["study", str(path), "--dry-run"]) == 0
    assert main(["study", str(path), "--quiet", "--jobs", "1"]) == 0
    assert "2 runs done, 0 were before" in capsys.readouterr().err
    results = Results.load(tmp_path / "out")
    models = {name: RewardModel.load(tmp_path / name) for name in "ab"}
    run = run_benchmark(RewardBench(rows), models, name="rewardbench", data=rows)
    wanted = [score.value for score in run.of_metric("overall")]
    assert [run.values["RewardBench"] for run in results.runs] == wanted
    assert sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "a").rglob("*")) == before
    assert not list(tmp_path.rglob("out/**/model"))
    assert main(["study", str(path), "--quiet", "--jobs", "1"]) == 0
    assert "0 runs done, 2 were before" in capsys.readouterr().err
    # A model that is not there, or not named.
    assert main(["study", str(path), "--dry-run", "--set", "axes.model.b.init=nowhere"]) == 1
    assert "is no model directory" in capsys.readouterr().out
    path.write_text(path.read_text().replace(f'b.init = "{tmp_path / "b"}"', "b.train.lr = 1e-3"))
    assert main(["study", str(path)]) == 2
    assert "cell 'b' names no model; the study trains none (trains = false)" in capsys.readouterr().err
    assert main(["study", str(path), "--set", 'held_out={"pairs" = "pair accuracy"}']) == 2
    assert "held_out must be {} where trains = false" in capsys.readouterr().err
