"""Every recipe starts on data laid out as published: it trains two steps, evaluates, and writes its row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from imported_models import import_models

from basereward.cli import main
from basereward.config import load_run, stage_runs
from basereward.plugins import PluginManager
from basereward.study import PlannedRun, Study, load_study, planned_runs
from basereward.study.collect import NOTHING_SCORED, collect
from basereward.study.report import PAGE_FILE, write_report
from basereward.study.run import benchmarks_of, task_of
from basereward.study.worker import is_done, run_task

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = [path.relative_to(RECIPES.parent).as_posix() for path in sorted(RECIPES.rglob("*.toml"))]
STUDIES = [path for path in FILES if "[axes" in (RECIPES.parent / path).read_text(encoding="utf-8")]

DEFAULT_TIER = ("basereward-7b", "text-small", "table-1")
EXTERNAL_TIER = ("qlora-7b", "two-stage-7b", "table-7", "public-models")
"""Recipes that CI starts: between them every data set that is kept, every benchmark, and every kind of
backbone and paradigm. The others differ in settings, and are started by `make test-slow`."""


def tiers(paths: Sequence[str]) -> list[Any]:
    """Return recipes as cases, those beyond the default tier marked."""
    marks: dict[str, Any] = dict.fromkeys(EXTERNAL_TIER, pytest.mark.external)
    marks |= dict.fromkeys(DEFAULT_TIER, ())
    return [pytest.param(path, marks=marks.get(Path(path).stem, pytest.mark.slow)) for path in paths]


SMALL = ("train.max_steps=2", "train.batch_size=4")
"""Settings of every run."""

WRITING = {
    "table-1": (
        "axes.paradigm.Critic-RM.paradigm.max_critique_tokens=4",
        'axes.paradigm."LongCoT-GRM, no RL".paradigm.max_answer_tokens=4',
        "axes.paradigm.LongCoT-GRM.paradigm.max_answer_tokens=4",
    ),
    "judge_7b_sft": ("paradigm.max_answer_tokens=4",),
    "small-paradigms": (
        "axes.paradigm.critic.paradigm.max_critique_tokens=4",
        "axes.paradigm.reasoned.paradigm.max_answer_tokens=4",
    ),
}
"""Settings of recipes whose models write, which random ones do to the longest text allowed."""


NO_MARGIN = "no member's mean margin is above 0, so none can be given a weight"
"""What weighting by margins says of random models that are all wrong more than right."""


UNREAD: dict[str, str | list[str]] = {
    "LongCoT-GRM, no RL": ["MMRB, both orders", "VLRB, both orders"],
    "LongCoT-GRM": ["MMRB, both orders", "VLRB, both orders"],
    "judge_7b_sft": [],
    "reasoned": NOTHING_SCORED,
}
"""Judges that reason, with the columns that they can't fill, or why: random ones write no verdict, and have
the numbers of protocols that count that alone.
"""


@cache
def plugins() -> PluginManager:
    """Return the plugins of a command line."""
    return PluginManager(discover=True)


def planned(path: str) -> tuple[Study, list[PlannedRun]]:
    """Return a study in small and its runs."""
    settings = ("seeds=[0]", "launch=[]", *(f"run.{setting}" for setting in SMALL))
    study = load_study(path, (*settings, *WRITING.get(Path(path).stem, ())))
    return study, planned_runs(study, plugins(), path=path)


def done(study: Study, run: PlannedRun) -> None:
    """Do a run, unless another study did it."""
    benchmarks = benchmarks_of(study, plugins())
    if not is_done(run.config, benchmarks):
        outcome = run_task(task_of(study, run, benchmarks))
        assert not outcome.error, f"{run.name}: {outcome.error}"
    assert is_done(run.config, benchmarks)


def overrides(settings: Sequence[str]) -> list[str]:
    """Return settings as arguments."""
    return [text for setting in settings for text in ("--set", setting)]


@pytest.mark.parametrize("path", tiers([path for path in FILES if path not in STUDIES]))
def test_every_run_file_trains_and_evaluates(
    path: str, cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from basereward_mini import assets

    found = cwd / assets.RATINGS_DIRECTORY / assets.RATINGS_NAME
    monkeypatch.setattr(assets, "RATINGS_SHA256", _sha256(found))
    settings = [*SMALL, *WRITING.get(Path(path).stem, ())]
    settings += ["backbone.model=tiny/wide"] if "qlora" in path else []
    assert main(["train", path, "--quiet", *overrides(settings)]) == 0, capsys.readouterr().err
    for run in stage_runs(load_run(path, settings)):
        directory = Path(run.output)
        log = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
        assert max(entry.get("step", 0) for entry in log) == 2
        assert (directory / "model" / "reward_config.json").is_file()
        if Path(path).stem in UNREAD:
            rejected = [json.loads(line) for line in (directory / "rejected.jsonl").read_text().splitlines()]
            reasons = {row["reason"] for row in rejected if row["split"] == "eval"}
            assert reasons == {"no verdict could be read in what the judge wrote on its pairs"}
        elif run.data.eval:
            report = json.loads((directory / "evaluation" / "report.json").read_text())
            assert report["num_comparisons"] > 0


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("path", tiers(STUDIES))
@pytest.mark.usefixtures("reinforced_judge")
def test_every_cell_of_every_study_fills_its_row(path: str, cwd: Path) -> None:
    study, runs = planned(path)
    if not study.trains:
        import_models(Path(path))
    for run in runs:
        done(study, run)
    results = collect(study, runs, plugins())
    unfilled = {run.row: run.error or sorted(set(study.columns) - set(run.values)) for run in results.runs}
    for row in UNREAD.keys() & unfilled.keys():
        assert unfilled.pop(row) == UNREAD[row]
    assert {row: what for row, what in unfilled.items() if what and what != NO_MARGIN} == {}
    assert len(results.runs) == len(study.rows) + len(study.ensembles)
    output = Path(study.output)
    results.save(output)
    write_report(study, results, output)
    assert (output / PAGE_FILE).is_file()
