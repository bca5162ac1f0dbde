"""One process, or several that share the work or the model: the same training."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from PIL import Image as Pillow
from rounding import SMOOTH_EPS, adamw_bound, tiny_metric_bound, within
from safetensors.torch import load_file

from basereward.config import Component, RunConfig, to_toml
from basereward.scoring.reward_model import RewardModel

pytestmark = pytest.mark.external

in_child = partial(runs.in_child, adamw_eps=SMOOTH_EPS)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Data with rows of all lengths, one that can't be encoded, and one that teaches nothing."""

    root: Path
    model: Path
    held_out: Path

    def config(self, name: str, **settings: Any) -> RunConfig:
        own: dict[str, Any] = {
            "backbone": Component("causal-lm", {"model": str(self.model), "max_tokens": 200}),
            "epochs": 2,
            "batch_size": 5,
            "micro_batch_size": 2,
            "log_every": 1,
            "save_every": 2,
        }
        return runs.config(
            self.root / name, self.model, self.root / "train.jsonl", self.held_out, **{**own, **settings}
        )


@pytest.fixture(scope="module")
def setting(
    tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Setting:
    root = tmp_path_factory.mktemp("parallel")
    tied = {"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]}
    long = {"prompt": "long", "responses": ["cat " * 300, "b"], "ranks": [0, 1]}
    runs.write_rows(root / "train.jsonl", [*runs.rows(10, seed=3), tied, long, *runs.rows(1, seed=4)])
    return Setting(root, tiny_models["llama"], text_data / "eval.jsonl")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that was never killed, and the number of moments at which a rank could have been."""

    run: RunConfig
    num_moments: int
    victim: int = 0


@pytest.fixture(scope="module")
def alone(setting: Setting) -> Trained:
    """Return a run of one process."""
    run = setting.config("alone")
    status, num_moments = in_child(run)
    assert status == 0
    return Trained(run, num_moments)


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def together(setting: Setting, request: pytest.FixtureRequest) -> Trained:
    """Return a run of two processes, by DDP and by FSDP2."""
    run = setting.config(f"together-{request.param}", parallel=request.param)
    victim = 1 if request.param == "ddp" else 0
    status, num_moments = in_child(run, num_ranks=2, victim=victim)
    assert status == 0
    return Trained(run, num_moments, victim)


def assert_alike(run: RunConfig, expected: RunConfig) -> None:
    """Compare what two runs logged, and what they ended with."""
    found, wanted = (runs.records(Path(item.output)) for item in (run, expected))
    assert [list(record) for record in found] == [list(record) for record in wanted]
    for record, other in zip(found, wanted, strict=True):
        # A step's metrics are of the weights before it.
        num_steps = record.get("step", 0) - (record["kind"] == "step")
        bound = tiny_metric_bound(num_steps, run.train.lr)
        for key, value in record.items():
            if isinstance(value, float) and key != "fill":  # rows dealt otherwise are padded otherwise
                assert value == pytest.approx(other[key], rel=bound, abs=bound), key
            elif key != "fill":
                assert value == other[key]
    drift = adamw_bound(max(record.get("step", 0) for record in wanted), run.train.lr)
    for name in ("model", "last"):
        directories = [Path(item.output) / name for item in (run, expected)]
        weights = [load_file(directory / "model.safetensors") for directory in directories]
        assert weights[0].keys() == weights[1].keys()
        for key, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][key], **within(drift), msg=key)
        RewardModel.load(directories[0])
    rejected = [(Path(item.output) / "rejected.jsonl").read_text() for item in (run, expected)]
    assert rejected[0] == rejected[1]


def test_two_processes_take_the_course_of_one(alone: Trained, together: Trained) -> None:
    assert_alike(together.run, alone.run)


def test_two_processes_of_which_one_is_killed_end_with_the_same_bytes(together: Trained) -> None:
    fraction = 0.35 if together.victim else 0.7
    killed = dataclasses.replace(together.run, output=f"{together.run.output}-killed")
    moment = int(fraction * together.num_moments)
    status, _ = in_child(killed, num_ranks=2, victim=together.victim, kill_at=moment)
    assert status == -signal.SIGKILL
    assert in_child(killed, num_ranks=2, resume=True)[0] == 0
    assert runs.remains(Path(killed.output)) == runs.remains(Path(together.run.output))


def test_a_run_of_two_processes_is_resumed_by_one_and_the_other_way_round(
    alone: Trained, together: Trained
) -> None:
    for before, after, uninterrupted in ((2, 1, together), (1, 2, alone)):
        run = dataclasses.replace(together.run, output=f"{together.run.output}-{before}-{after}")
        # Killed only after its first checkpoint.
        moment = uninterrupted.num_moments // 2
        status, _ = in_child(run, num_ranks=before, victim=uninterrupted.victim, kill_at=moment)
        assert status == -signal.SIGKILL
        assert list((Path(run.output) / "checkpoint").glob("step-*"))
        assert in_child(run, num_ranks=after, resume=True)[0] == 0
        assert_alike(run, alone.run)


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_in_the_background_leaves_the_one_before(
    setting: Setting, together: Trained
) -> None:
    run = dataclasses.replace(
        together.run,
        output=f"{together.run.output}-background",
        train=dataclasses.replace(together.run.train, background_checkpoints=True),
    )
    status, num_moments = in_child(run, num_ranks=2, victim=together.victim)
    assert status == 0
    expected, others = runs.remains(Path(run.output)), runs.remains(Path(together.run.output))
    # Both of these name the settings.
    told = {f"{part}/{name}" for part in ("model", "last") for name in ("README.md", "reward_config.json")}
    assert {name for name in expected if expected[name] != others[name]} == told
    for fraction in (0.4, 0.6):
        killed = dataclasses.replace(run, output=f"{run.output}-{fraction}")
        moment = int(fraction * num_moments)
        status, _ = in_child(killed, num_ranks=2, victim=together.victim, kill_at=moment)
        assert status == -signal.SIGKILL
        assert in_child(killed, num_ranks=2, resume=True)[0] == 0
        assert runs.remains(Path(killed.output)) == expected


def test_processes_share_a_model_in_groups(setting: Setting, alone: Trained) -> None:
    # Two groups of one process each: each holds the whole model, and their gradients are joined.
    run = setting.config("hybrid", parallel="fsdp", shard_ranks=1)
    assert in_child(run, num_ranks=2)[0] == 0
    assert_alike(run, alone.run)


def test_more_processes_than_rows_leave_some_idle(setting: Setting) -> None:
    settings: dict[str, Any] = {"batch_size": 1, "micro_batch_size": None, "max_steps": 4}
    expected = setting.config("busy", **settings)
    assert in_child(expected)[0] == 0
    for kind in ("ddp", "fsdp"):
        run = setting.config(f"idle-{kind}", parallel=kind, **settings)
        assert in_child(run, num_ranks=2)[0] == 0
        assert_alike(run, expected)


def test_a_signal_to_torchrun_ends_a_run_that_is_gone_on_with_later(setting: Setting) -> None:
    run = setting.config("signalled", epochs=60, save_every=1000, eval_every=1000)
    run_file = setting.root / "signalled.toml"
    run_file.write_text(to_toml(run), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "basereward", "train", str(run_file)]
    log = Path(run.output) / "log.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (log.is_file() and log.read_text().count('"kind": "step"') > 5):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    [checkpoint] = (Path(run.output) / "checkpoint").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 5 < step < 180  # of 60 epochs of 3 steps
    # Only the main process reports.
    stopped = f"stopped by SIGTERM after step {step}; {run.output} holds a checkpoint"
    assert errors.count(stopped) == 1
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=90, check=True)
    assert "trained 180 steps" in done.stdout
    assert done.stdout.count("model: ") == 1
    assert [record["step"] for record in runs.records(Path(run.output), "step")] == list(range(1, 181))


def test_processes_that_cannot_be_divided_as_asked_are_refused(setting: Setting) -> None:
    run_file = setting.root / "wrong.toml"
    run_file.write_text(to_toml(setting.config("wrong", parallel="fsdp", shard_ranks=3)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "basereward", "train", str(run_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode
    message = "train.shard_ranks is 3, which doesn't divide the 2 processes; allowed: 1, 2"
    assert f"basereward: error: {message}" in done.stderr
    assert f"basereward: process 1: error: {message}" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_are_followed_by_fifty_exact_resumes(setting: Setting) -> None:
    chance = random.Random(0)
    forms = {"one": (1, "ddp"), "ddp": (2, "ddp"), "fsdp": (2, "fsdp")}
    expected: dict[str, dict[str, Any]] = {}
    num_moments: dict[tuple[str, int, str], int] = {}
    for number in range(50):
        form, among = [*forms][number % 3], "checkpoints" if number % 5 == 0 else "all"
        num_ranks, kind = forms[form]
        victim = chance.randrange(num_ranks)
        if (form, among) == ("ddp", "checkpoints"):
            victim = 0  # of copies of one model, one process writes
        key = (form, victim, among)
        if key not in num_moments:
            whole = setting.config(f"fifty-{form}-{victim}-{among}", parallel=kind)
            status, num_moments[key] = in_child(whole, num_ranks=num_ranks, victim=victim, among=among)
            assert status == 0
            expected.setdefault(form, runs.remains(Path(whole.output)))
        run = setting.config(f"fifty-{number}", parallel=kind)
        moment = chance.randrange(num_moments[key])
        status, _ = in_child(run, num_ranks=num_ranks, victim=victim, among=among, kill_at=moment)
        assert status == -signal.SIGKILL
        assert in_child(run, num_ranks=num_ranks, resume=True)[0] == 0
        assert runs.remains(Path(run.output)) == expected[form], (number, key, moment)
        print(f"{number + 1}: {form}, process {victim} killed at moment {moment} of {key}: same bytes")


def test_rows_with_images_and_rows_without_may_meet_in_one_step(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    Pillow.new("RGB", (56, 56), "red").save(image)
    content = runs.rows(8, seed=5)
    for row in content[::2]:
        row["prompt"], row["images"] = f"<image>{row['prompt']}", ["image.png"]
    rows = runs.write_rows(tmp_path / "train.jsonl", content)
    model = tiny_models["qwen2_5_vl"]

    def config(name: str, **parallel: str) -> RunConfig:
        # With two rows a step in two processes, one often has the image and the other none.
        settings: dict[str, Any] = {"batch_size": 2, "log_every": 1, **parallel}
        backbone = Component("qwen-vl", {"model": str(model)})
        return runs.config(tmp_path / name, model, rows, rows, backbone=backbone, **settings)

    assert in_child(config("alone"))[0] == 0
    for kind in ("ddp", "fsdp"):
        assert in_child(config(kind, parallel=kind), num_ranks=2)[0] == 0
        assert_alike(config(kind), config("alone"))
