"""Killed and resumed is as if never killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import runs

from basereward import ConfigError, hookimpl, train
from basereward.config import Component, DataConfig, MixtureConfig, RunConfig, Source
from basereward.plugins import PluginManager
from basereward.training.checkpoints import CheckpointError
from basereward.training.shutdown import TrainingStopped


@pytest.fixture(scope="module")
def whole(tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return a run that was never killed."""
    return Whole(tmp_path_factory.mktemp("resume"), tiny_models["llama"], text_data)


@pytest.fixture(scope="module")
def streamed(
    tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    """Return a run that was never killed, and never held its data in memory."""
    mixture = MixtureConfig(shuffle_buffer=5, temperature=2.0)
    settings: dict[str, Any] = {"streaming": True, "mixture": mixture, "curation": (Component("drop-empty"),)}
    return Whole(tmp_path_factory.mktemp("streamed"), tiny_models["llama"], text_data, **settings)


class Whole:
    """A run with all that has a memory: dropout, momenta, warm-up, best model, bad rows, changing data."""

    def __init__(self, root: Path, model: Path, data: Path, **reading: Any) -> None:
        self.root, self.model, self.data, self.reading = root, model, data, reading
        bad = [{"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]}]
        long = [{"prompt": "long", "responses": ["cat " * 300, "b"], "ranks": [0, 1]}]
        self.train = runs.write_rows(root / "train.jsonl", runs.rows(8, seed=3) + bad + long)
        run = self.config("whole")
        status, self.num_moments = runs.in_child(run)
        assert status == 0
        self.remains = runs.remains(Path(run.output))

    def config(self, name: str, **settings: object) -> RunConfig:
        data = DataConfig(
            train=(Source("basereward", {"path": str(self.train)}), Source("shifting", {"num": 6})),
            eval=(Component("basereward", {"path": str(self.data / "eval.jsonl")}),),
            **self.reading,
        )
        return runs.config(
            self.root / name,
            self.model,
            self.train,
            **{
                "plugins": ("runs",),
                "backbone": Component("causal-lm", {"model": str(self.model), "max_tokens": 200}),
                "head": Component("mlp", {"dropout": 0.2}),
                "data": data,
                "epochs": 2.5,
                "batch_size": 4,
                "micro_batch_size": 3,
                "log_every": 3,
                "save_every": 2,
                "warmup_fraction": 0.2,
                **settings,
            },
        )


def kill_and_resume(whole: Whole, name: str, *moments: int) -> dict[str, Any]:
    """Run until the first moment, resume until the next, and in the end to the end."""
    run = whole.config(name)
    for number, moment in enumerate(moments):
        status, _ = runs.in_child(run, kill_at=moment, resume=number > 0)
        assert status == -signal.SIGKILL
    status, _ = runs.in_child(run, resume=True)
    assert status == 0
    return runs.remains(Path(run.output))


@pytest.mark.parametrize("fraction", [1 / 6, 3 / 6, 5 / 6])
def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_bytes(
    whole: Whole, fraction: float
) -> None:
    moment = int(fraction * whole.num_moments)
    assert kill_and_resume(whole, f"killed-{moment}", moment) == whole.remains


@pytest.mark.external
@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_streamed_data_is_taken_up_where_the_killed_run_left_it(streamed: Whole, fraction: float) -> None:
    moment = int(fraction * streamed.num_moments)
    remains = kill_and_resume(streamed, f"killed-{moment}", moment)
    assert remains == streamed.remains
    listed = [json.loads(line)["reason"] for line in remains["rejected"].splitlines()]
    assert "all responses are tied, which teaches this loss nothing" in listed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_every_moment_and_resumed_ends_with_the_same_bytes(whole: Whole) -> None:
    for moment in range(whole.num_moments):
        assert kill_and_resume(whole, f"each-{moment}", moment) == whole.remains, moment


def test_a_run_may_be_killed_again_and_again(whole: Whole) -> None:
    third = whole.num_moments // 3
    assert kill_and_resume(whole, "thrice", third, third, third // 2) == whole.remains


def test_two_runs_of_one_seed_are_alike(whole: Whole) -> None:
    run = whole.config("again")
    assert runs.in_child(run)[0] == 0
    assert runs.remains(Path(run.output)) == whole.remains


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(whole: Whole) -> None:
    run = whole.config("damaged")
    assert runs.in_child(run)[0] == 0
    older, newest = sorted((Path(run.output) / "checkpoint").iterdir())
    (newest / "optimizer.safetensors").write_bytes(b"")
    assert runs.in_child(run, resume=True)[0] == 0
    assert runs.remains(Path(run.output)) == whole.remains
    assert older.is_dir()


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_signal_ends_the_training_after_its_step_and_loses_nothing(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path, number: int, step: int
) -> None:
    def config(name: str) -> RunConfig:
        paths = (text_data / "train.jsonl", text_data / "eval.jsonl")
        return runs.config(
            tmp_path / name, tiny_models["llama"], *paths, max_steps=4, eval_every=2, log_every=1
        )

    @hookimpl
    def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
        if (record["kind"], record["step"]) == ("step", step):
            signal.raise_signal(number)

    module = types.ModuleType("signalling")
    module.basereward_log = basereward_log  # type: ignore[attr-defined]
    before = signal.getsignal(number)
    with pytest.raises(TrainingStopped) as caught:
        train(config("run"), progress=False, plots=False, plugins=PluginManager([module]))
    assert str(caught.value) == (
        f"stopped by {signal.Signals(number).name} after step {step}; {tmp_path / 'run'} holds a checkpoint: "
        "give the same command with --resume to go on"
    )
    assert signal.getsignal(number) is before
    # After step 2 an evaluation is due; who sends a signal may not wait for it.
    assert not runs.records(tmp_path / "run", "evaluation")
    train(config("run"), progress=False, plots=False, resume=True)
    train(config("whole"), progress=False, plots=False)
    remains, expected = runs.remains(tmp_path / "run"), runs.remains(tmp_path / "whole")
    for found in (remains, expected):
        found["log"] = [record for record in found["log"] if record["kind"] != "checkpoint"]
    assert remains == expected


@pytest.fixture(scope="module")
def two_steps(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return a run that has ended after two steps, for `finished` to copy."""
    root = tmp_path_factory.mktemp("finished")
    path = runs.write_rows(root / "train.jsonl", runs.rows(8, seed=1))
    run = runs.config(root / "run", tiny_models["llama"], path)
    train(run, progress=False, plots=False)
    return run


@pytest.fixture
def finished(two_steps: RunConfig, tmp_path: Path) -> RunConfig:
    """Return a copy of a run that has ended after two steps."""
    shutil.copytree(two_steps.output, tmp_path / "run")
    return dataclasses.replace(two_steps, output=str(tmp_path / "run"))


def test_resuming_a_finished_run_changes_nothing(finished: RunConfig) -> None:
    before = runs.remains(Path(finished.output))
    result = train(finished, resume=True, progress=False, plots=False)
    assert result.num_steps == 2
    assert runs.remains(Path(finished.output)) == before


def test_a_run_without_checkpoint_is_started_anew(finished: RunConfig) -> None:
    before = runs.remains(Path(finished.output))
    shutil.rmtree(Path(finished.output) / "checkpoint")
    train(finished, resume=True, progress=False, plots=False)
    assert runs.remains(Path(finished.output)) == before


def test_a_run_is_resumed_only_with_its_own_settings(finished: RunConfig) -> None:
    changed = dataclasses.replace(finished, train=dataclasses.replace(finished.train, lr=2e-3))
    with pytest.raises(ConfigError) as caught:
        train(changed, resume=True, progress=False, plots=False)
    assert str(caught.value) == (
        f"train.lr is 0.002, but 0.001 in {finished.output}/run.toml; a run is resumed with the settings it "
        "was started with, or replaced with --overwrite"
    )
    head = dataclasses.replace(finished, head=Component("mlp", {"num_layers": 3}))
    with pytest.raises(ConfigError, match=r"^head.num_layers is 3, but 2 in "):
        train(head, resume=True, progress=False, plots=False)


def test_what_changes_no_result_may_change_on_resume(finished: RunConfig) -> None:
    settings = dataclasses.replace(finished.train, micro_batch_size=1, save_every=1, log_every=1)
    result = train(dataclasses.replace(finished, train=settings), resume=True, progress=False, plots=False)
    assert result.num_steps == 2


def test_a_run_is_not_resumed_with_other_data(finished: RunConfig) -> None:
    path = Path(finished.data.train[0].options["path"])
    given = path.read_bytes()
    runs.write_rows(path, runs.rows(8, seed=2))
    try:
        with pytest.raises(CheckpointError) as caught:
            train(finished, resume=True, progress=False, plots=False)
    finally:
        path.write_bytes(given)
    assert str(caught.value) == (
        f"{finished.output}/checkpoint/step-00000002: the training data is not what the run was started "
        "with; bring it back, or start anew with --overwrite"
    )


def test_a_checkpoint_of_another_model_is_refused(finished: RunConfig, tiny_models: dict[str, Path]) -> None:
    # The settings are the same: what lies at the backbone's path has changed.
    place = Path(finished.backbone.options["model"])
    assert place == tiny_models["llama"]
    moved = dataclasses.replace(
        finished, backbone=Component("causal-lm", {"model": str(tiny_models["qwen2"])})
    )
    run_file = Path(finished.output) / "run.toml"
    run_file.write_text(run_file.read_text().replace(str(place), str(tiny_models["qwen2"])))
    with pytest.raises(CheckpointError) as caught:
        train(moved, resume=True, progress=False, plots=False)
    assert str(caught.value) == (
        f"{finished.output}/checkpoint/step-00000002/model.safetensors is of another model: it differs in "
        "the tensor backbone.model.layers.0.self_attn.k_proj.bias"
    )


def test_a_damaged_checkpoint_is_named(finished: RunConfig) -> None:
    path = Path(finished.output) / "checkpoint" / "step-00000002" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError) as caught:
        train(finished, resume=True, progress=False, plots=False)
    assert str(caught.value) == f"{path} is damaged: its SHA-256 differs"
