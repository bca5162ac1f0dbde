"""Runs of several stages: each goes on with the model of the one before."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import runs
from rounding import SMOOTH_EPS, tiny_metric_bound

from basereward import ConfigError, train
from basereward.cli import main
from basereward.config import RunConfig, Stage, to_toml


class Setting:
    """A run of two stages that differ in what they train on, and how."""

    def __init__(self, root: Path, model: Path, data: Path) -> None:
        self.root, self.model, self.data = root, model, data
        runs.write_rows(root / "second.jsonl", runs.rows(8, seed=5))

    def config(self, name: str = "run", **settings: Any) -> RunConfig:
        second = {"train": [{"name": "basereward", "path": str(self.root / "second.jsonl")}]}
        stages = (
            Stage(name="first"),
            Stage(name="second", start="best", data=second, train={"lr": 2e-3, "epochs": 2}),
        )
        paths = (self.data / "train.jsonl", self.data / "eval.jsonl")
        return runs.config(self.root / name, self.model, *paths, **{"stages": stages, **settings})


@pytest.fixture
def setting(tiny_models: dict[str, Path], text_data: Path, tmp_path: Path) -> Setting:
    return Setting(tmp_path, tiny_models["llama"], text_data)


def remains(run: RunConfig) -> dict[str, Any]:
    return {stage.name: runs.remains(Path(run.output, stage.name)) for stage in run.stages}


def test_a_run_file_of_two_stages_becomes_a_model(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    run = setting.config(log_every=1)
    run_file = setting.root / "run.toml"
    run_file.write_text(to_toml(run), encoding="utf-8")
    assert main(["train", str(run_file)]) == 0
    output = capsys.readouterr()
    # 22 rows in batches of 4 are 6 steps; 8 rows twice are 4.
    assert "stage 1 of 2: first\n" in output.err
    assert "6 steps of 4 comparisons" in output.err
    assert "stage 2 of 2: second\n" in output.err
    assert output.out.startswith("trained 4 steps in ")
    assert output.out.endswith(f"model: {run.output}/second/model\n")
    names = [".basereward-run", "first", "run.toml", "second"]
    assert sorted(path.name for path in Path(run.output).iterdir()) == names
    steps = runs.records(Path(run.output, "second"), "step")
    assert max(record["lr"]["head"] for record in steps) == 2e-3
    config = json.loads(Path(run.output, "second", "model", "reward_config.json").read_text())
    assert config["record"]["started_from"] == f"{run.output}/first/model"
    assert config["record"]["base_model"] == str(setting.model)
    # The second stage alone, as a run of its own, ends alike.
    alone = runs.config(
        setting.root / "alone",
        setting.model,
        setting.root / "second.jsonl",
        setting.data / "eval.jsonl",
        init=f"{run.output}/first/model",
        lr=2e-3,
        epochs=2,
        log_every=1,
    )
    train(alone, progress=False, plots=False)
    assert runs.records(Path(alone.output)) == runs.records(Path(run.output, "second"))


@pytest.mark.external
def test_a_run_killed_in_any_stage_is_resumed_there(setting: Setting) -> None:
    run = setting.config()
    status, num_moments = runs.in_child(run)
    assert status == 0
    expected = remains(run)
    for fraction in (0.3, 0.7):
        # In the same directory again, since a model holds the path of the one that it started from.
        Path(run.output).rename(setting.root / f"before-{fraction}")
        assert runs.in_child(run, kill_at=int(fraction * num_moments))[0] == -signal.SIGKILL
        is_in_second = Path(run.output, "second", "run.toml").is_file()
        assert is_in_second == (fraction > 0.4)
        before = _times(Path(run.output, "first"))
        assert runs.in_child(run, resume=True)[0] == 0
        assert remains(run) == expected
        if is_in_second:  # a stage that has ended isn't touched
            assert _times(Path(run.output, "first")) == before


def _times(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.mark.external
def test_two_processes_train_stage_after_stage(setting: Setting) -> None:
    alone, together = setting.config("alone"), setting.config("together")
    assert runs.in_child(alone, adamw_eps=SMOOTH_EPS)[0] == 0
    assert runs.in_child(together, num_ranks=2, adamw_eps=SMOOTH_EPS)[0] == 0
    # 6 steps at a rate of up to 1e-3, and 4 of up to twice that.
    bound = tiny_metric_bound(6 + 2 * 4, 1e-3)
    for stage in ("first", "second"):
        found, expected = (
            runs.records(Path(run.output, stage), "evaluation")[-1] for run in (together, alone)
        )
        assert found["log_loss"] == pytest.approx(expected["log_loss"], abs=bound)


def test_a_directory_in_use_is_not_written_in(setting: Setting) -> None:
    run = setting.config(max_steps=1)
    train(run, progress=False, plots=False)
    with pytest.raises(ConfigError) as caught:
        train(run, progress=False, plots=False)
    assert str(caught.value) == (
        f"output: {run.output} is not empty; resume the run there with --resume, replace it with "
        "--overwrite, or set another output"
    )
    (Path(run.output) / "first" / "thesis.tex").touch()
    changed = dataclasses.replace(run, seed=1)
    with pytest.raises(ConfigError, match=r"^seed is 1, but 0 in "):
        train(changed, resume=True, progress=False, plots=False)
    assert train(changed, overwrite=True, progress=False, plots=False).num_steps == 1
    assert (Path(run.output) / "first" / "thesis.tex").exists()


def test_a_run_that_failed_before_its_first_step_does_not_keep_the_next_one_out(setting: Setting) -> None:
    model = setting.root / "later"
    run = setting.config(max_steps=1)
    stages = (dataclasses.replace(run.stages[0], data={"on_bad_row": "fail"}), run.stages[1])
    train_file = setting.root / "train.jsonl"
    train_file.write_text("{}\n")
    broken = runs.config(
        setting.root / "run", setting.model, train_file, setting.data / "eval.jsonl", stages=stages
    )
    with pytest.raises(Exception, match=r"train.jsonl:1: "):
        train(broken, progress=False, plots=False)
    assert not model.exists()
    assert train(run, progress=False, plots=False).num_steps == 1


def test_a_wrong_option_of_a_later_stage_is_found_before_the_first_one_trains(setting: Setting) -> None:
    run = setting.config()
    source = {"name": "basereward", "path": str(setting.root / "second.jsonl"), "sorce": "x"}
    stages = (run.stages[0], dataclasses.replace(run.stages[1], data={"train": [source]}))
    with pytest.raises(ConfigError, match="sorce"):
        train(dataclasses.replace(run, stages=stages), progress=False, plots=False)
    assert not Path(run.output).exists()
