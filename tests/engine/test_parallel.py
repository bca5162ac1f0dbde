"""One process, or several that share the work or the model: the same training."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import runs
from safetensors.torch import load_file

from basereward.config import Component, RunConfig
from basereward.model import RewardModel

TOLERANCE = 1e-5


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


@pytest.fixture(scope="module")
def alone(setting: Setting) -> RunConfig:
    """Return a run of one process."""
    run = setting.config("alone")
    assert runs.in_child(run)[0] == 0
    return run


def assert_alike(run: RunConfig, expected: RunConfig) -> None:
    """Compare what two runs logged, and what they ended with."""
    found, wanted = (runs.records(Path(item.output)) for item in (run, expected))
    assert [list(record) for record in found] == [list(record) for record in wanted]
    for record, other in zip(found, wanted, strict=True):
        for key, value in record.items():
            if isinstance(value, float) and key != "fill":  # rows dealt otherwise are padded otherwise
                assert value == pytest.approx(other[key], rel=TOLERANCE, abs=TOLERANCE), key
            elif key != "fill":
                assert value == other[key]
    for name in ("model", "last"):
        directories = [Path(item.output) / name for item in (run, expected)]
        weights = [load_file(directory / "model.safetensors") for directory in directories]
        assert weights[0].keys() == weights[1].keys()
        for key, value in weights[0].items():
            assert value.numpy() == pytest.approx(weights[1][key].numpy(), abs=TOLERANCE), key
        RewardModel.load(directories[0])
    rejected = [(Path(item.output) / "rejected.jsonl").read_text() for item in (run, expected)]
    assert rejected[0] == rejected[1]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_take_the_course_of_one(setting: Setting, alone: RunConfig, kind: str) -> None:
    run = setting.config(kind, parallel=kind)
    assert runs.in_child(run, num_ranks=2)[0] == 0
    assert_alike(run, alone)


@pytest.mark.parametrize(("kind", "fraction", "victim"), [("ddp", 0.35, 1), ("fsdp", 0.7, 0)])
def test_two_processes_of_which_one_is_killed_end_with_the_same_bytes(
    setting: Setting, kind: str, fraction: float, victim: int
) -> None:
    whole, killed = (setting.config(f"{name}-{kind}", parallel=kind) for name in ("whole", "killed"))
    status, num_moments = runs.in_child(whole, num_ranks=2, victim=victim)
    assert status == 0
    status, _ = runs.in_child(killed, num_ranks=2, victim=victim, kill_at=int(fraction * num_moments))
    assert status == -signal.SIGKILL
    assert runs.in_child(killed, num_ranks=2, resume=True)[0] == 0
    assert runs.remains(Path(killed.output)) == runs.remains(Path(whole.output))
