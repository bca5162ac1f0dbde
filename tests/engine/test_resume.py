"""Killed and resumed is as if never killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import runs

from basereward.config import Component, DataConfig, RunConfig


@pytest.fixture(scope="module")
def whole(tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return a run that was never killed."""
    return Whole(tmp_path_factory.mktemp("resume"), tiny_models["llama"], text_data)


class Whole:
    """A run with all that has a memory: dropout, momenta, warm-up, best model, bad rows, changing data."""

    def __init__(self, root: Path, model: Path, data: Path) -> None:
        self.root, self.model, self.data = root, model, data
        bad = [{"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]}]
        long = [{"prompt": "long", "responses": ["cat " * 300, "b"], "ranks": [0, 1]}]
        self.train = runs.write_rows(root / "train.jsonl", runs.rows(8, seed=3) + bad + long)
        run = self.config("whole")
        status, self.num_moments = runs.in_child(run)
        assert status == 0
        self.remains = runs.remains(Path(run.output))

    def config(self, name: str, **settings: object) -> RunConfig:
        data = DataConfig(
            train=(Component("basereward", {"path": str(self.train)}), Component("shifting", {"num": 6})),
            eval=(Component("basereward", {"path": str(self.data / "eval.jsonl")}),),
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


def kill_and_resume(whole: Whole, name: str, *moments: int) -> dict[str, object]:
    """Run until the first moment, resume until the next, and in the end to the end."""
    run = whole.config(name)
    for number, moment in enumerate(moments):
        status, _ = runs.in_child(run, kill_at=moment, resume=number > 0)
        assert status == -signal.SIGKILL
    status, _ = runs.in_child(run, resume=True)
    assert status == 0
    return runs.remains(Path(run.output))


@pytest.mark.parametrize("fraction", [(2 * number + 1) / 16 for number in range(8)])
def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_bytes(
    whole: Whole, fraction: float
) -> None:
    moment = int(fraction * whole.num_moments)
    assert kill_and_resume(whole, f"killed-{moment}", moment) == whole.remains


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
