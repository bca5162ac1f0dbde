"""A run's directory is one process's at a time, and only what a run has written there is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import runs

from basereward import ConfigError, train
from basereward.config import RunConfig
from basereward.config.run import LoraConfig
from basereward.plugins.plugin_manager import manager
from basereward.storage import atomic
from basereward.training import run_directory

HOLDER = """
import sys, time
from pathlib import Path
from basereward.training.run_directory import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    return runs.config(tmp_path / "run", tmp_path / "no-model", tmp_path / "no-data.jsonl")


@pytest.mark.parametrize("setting", [{}, {"resume": True}, {"overwrite": True}])
def test_a_directory_that_another_process_writes_is_refused_by_name(
    run: RunConfig, setting: dict[str, bool]
) -> None:
    command = [sys.executable, "-c", HOLDER, run.output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match=f"^{run.output} is being written by process {holder.pid} on "):
            train(run, progress=False, plots=False, **setting)
        holder.send_signal(signal.SIGKILL)
    with run_directory.locked(Path(run.output)):  # the lock has ended with its process
        pass


@pytest.mark.parametrize("name", ["model", "plots", "run.toml", "checkpoint"])
@pytest.mark.parametrize("setting", [{}, {"resume": True}, {"overwrite": True}])
def test_what_no_run_has_written_is_not_removed(run: RunConfig, name: str, setting: dict[str, bool]) -> None:
    theirs = Path(run.output, name)
    theirs.mkdir(parents=True)
    (theirs / "weights.safetensors").write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=f"^output: {theirs} is not of a run of this BaseReward"):
        train(run, progress=False, plots=False, **setting)
    with pytest.raises(ConfigError, match=f"^output: {theirs} is not of a run of this BaseReward"):
        run_directory.clear(Path(run.output))
    assert (theirs / "weights.safetensors").read_bytes() == b"theirs"


def prepare(run: RunConfig) -> None:
    run_directory.prepare(run, manager(), resume=False, overwrite=False)


def test_a_library_is_missed_before_rows_and_weights_are_read(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    adapted = replace(run, train=replace(run.train, lora=LoraConfig()))
    with pytest.raises(ConfigError, match=r"\[train.lora\] needs PEFT.*pip install peft"):  # no model yet
        train(adapted, progress=False, plots=False)
    assert not Path(run.output).exists()


def test_a_run_that_ended_before_its_first_checkpoint_is_started_again(run: RunConfig) -> None:
    directory = Path(run.output)
    with run_directory.locked(directory):
        prepare(run)
        for name in ("log.jsonl", "rejected.jsonl", "not-finite.jsonl"):
            (directory / name).write_text("of the run before\n")
        for name in ("tensorboard/events.out.tfevents.1", "checkpoint/unfinished-step-00000010/state.json"):
            (directory / name).parent.mkdir(parents=True)
            (directory / name).write_text("")
        prepare(run)
        assert {path.name for path in directory.iterdir()} == {"run.toml", run_directory.LOCK_FILE}


@pytest.mark.parametrize("name", ["checkpoint/step-00000010/state.json", "model/config.json", "mine.txt"])
def test_a_run_with_a_checkpoint_or_a_model_is_not_started_again(run: RunConfig, name: str) -> None:
    with run_directory.locked(Path(run.output)):
        prepare(run)
        file = Path(run.output, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        with pytest.raises(ConfigError, match="is not empty; resume the run there with --resume"):
            prepare(run)
        assert file.read_text() == "{}"


def test_a_run_clears_its_own_files_and_no_other(run: RunConfig) -> None:
    directory = Path(run.output)
    with run_directory.locked(directory):
        run_directory.prepare(run, manager(), resume=False, overwrite=False)
        for name in ("model", "thesis", ".model.backup"):
            (directory / name).mkdir()
        run_directory.prepare(run, manager(), resume=False, overwrite=True)
    assert {path.name for path in directory.iterdir()} == {
        run_directory.LOCK_FILE,
        "run.toml",
        "thesis",
        ".model.backup",
    }


def test_resuming_puts_back_what_a_kill_left_aside_and_removes_the_rest(run: RunConfig) -> None:
    directory = Path(run.output)
    aside = atomic._aside_name("model")
    with run_directory.locked(directory):
        for name in (aside, aside.replace(".new", ".old")):
            (directory / name).mkdir()
            (directory / name / "weights").write_text(name)
        run_directory.prepare(run, manager(), resume=True, overwrite=False)
    assert (directory / "model" / "weights").read_text() == aside.replace(".new", ".old")
    assert {path.name for path in directory.iterdir()} == {run_directory.LOCK_FILE, "run.toml", "model"}


def test_a_pipe_in_the_place_of_the_lock_is_not_waited_for(run: RunConfig) -> None:
    directory = Path(run.output)
    directory.mkdir()
    os.mkfifo(directory / run_directory.LOCK_FILE)
    with (
        pytest.raises(ConfigError, match="can't be locked: it is no regular file$"),
        run_directory.locked(directory),
    ):
        pytest.fail("the lock of a pipe was taken")
