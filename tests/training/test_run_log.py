"""The log of a run, and its plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from basereward.extras import install_command
from basereward.plugins import PluginManager
from basereward.training.plots import plot_run
from basereward.training.run_log import RunLog


def lines(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def test_what_a_killed_run_wrote_after_its_checkpoint_is_cut_off(tmp_path: Path) -> None:
    log = RunLog(tmp_path, PluginManager())
    log.write("step", step=1, loss=0.5)
    offset = log.sync()
    log.write("step", step=2, loss=0.4)
    log.close()
    log = RunLog(tmp_path, PluginManager(), offset=offset, step=1)
    log.write("step", step=2, loss=0.3)
    log.close()
    assert [record["loss"] for record in lines(tmp_path)] == [0.5, 0.3]


def test_the_log_is_json_that_anything_can_read(tmp_path: Path) -> None:
    log = RunLog(tmp_path, PluginManager())
    log.write("evaluation", step=1, accuracy=float("nan"), lr={"head": float("inf")}, rest=(1, 2.5))
    log.close()
    assert lines(tmp_path) == [
        {"kind": "evaluation", "step": 1, "accuracy": None, "lr": {"head": None}, "rest": [1, 2.5]}
    ]


def test_tensorboard_has_every_number_by_its_step(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path, PluginManager())
    for step in (1, 2):
        log.write("step", step=step, loss=1.0 / step, lr={"head": 0.1})
    log.write("checkpoint", step=2, directory="checkpoint/step-2")
    log.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "train/lr/head"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]


def test_without_tensorboard_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    log = RunLog(tmp_path, PluginManager(), warn=said.append)
    log.write("step", step=1, loss=0.5)
    log.close()
    assert said == [f"TensorBoard is not installed: no events; {install_command('train')} brings it"]
    assert len(lines(tmp_path)) == 1


@pytest.mark.usefixtures("drawn_figures")
def test_an_image_is_drawn_of_any_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    assert plot_run(tmp_path) == tmp_path / "plots" / "training.png"
    log = RunLog(tmp_path, PluginManager())
    log.write("step", step=1, loss=float("nan"), accuracy=float("nan"), lr={"head": 0.1})
    log.close()
    assert plot_run(tmp_path).is_file()


class Recorder:
    """Stands in for a tracker of accelerate's."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, project: str, **options: Any) -> None:
        self.project, self.options = project, options
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_over = False
        self.made.append(self)

    def start(self) -> None:
        """Begin."""

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.is_over = True


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    pytest.importorskip("accelerate")
    made: list[Recorder] = []
    monkeypatch.setattr(Recorder, "made", made)
    monkeypatch.setattr(
        "basereward.training.trackers.find_spec", lambda name: None if name == "swanlab" else True
    )
    monkeypatch.setitem(__import__("accelerate.tracking").tracking.LOGGER_TYPE_TO_CLASS, "trackio", Recorder)
    return made


def run_directory(place: Path) -> Path:
    place.mkdir()
    (place / "run.toml").write_text('output = "run"\n[train]\nlr = 1e-5\n')
    return place


def test_trackers_get_the_numbers_and_a_resumed_training_goes_on(
    tmp_path: Path, recorders: list[Recorder]
) -> None:
    place = run_directory(tmp_path / "first")
    log = RunLog(place, PluginManager(), trackers=("trackio",))
    log.write("step", step=1, loss=0.5, lr={"head": 0.1})
    log.write("evaluation", step=1, accuracy=0.75, low=float("nan"))
    log.write("checkpoint", step=1, directory="checkpoint/step-1")
    offset = log.sync()
    log.close()
    RunLog(place, PluginManager(), offset=offset, step=1, trackers=("trackio",)).close()
    RunLog(place, PluginManager(), trackers=("trackio",)).close()
    first, resumed, anew = recorders
    assert first.project == "basereward"
    assert first.options["config"] == {"output": "run", "train": {"lr": 1e-5}}
    assert first.logged == [(1, {"train/loss": 0.5, "train/lr/head": 0.1}), (1, {"eval/accuracy": 0.75})]
    assert first.is_over
    assert first.options["name"] == resumed.options["name"] != anew.options["name"]


def test_a_tracker_that_fails_is_one_line(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = run_directory(tmp_path / "run")
    monkeypatch.setattr(Recorder, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no\nkey")))
    said: list[str] = []
    log = RunLog(place, PluginManager(), trackers=("trackio", "swanlab"), warn=said.append)
    log.write("step", step=1, loss=0.5)
    log.write("step", step=2, loss=0.4)
    log.close()
    assert said == [
        "log: trackio gets no more of this training: no key",
        "log: swanlab gets no more of this training: it is not installed; pip install swanlab",
    ]
    assert len(lines(place)) == 2
