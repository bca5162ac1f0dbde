"""A training with a cache: the same course, for less work, killed and resumed or not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import runs
from rounding import SMOOTH_EPS, tiny_metric_bound

from basereward import train
from basereward.backbones.feature_cache import FeatureCache
from basereward.config import RunConfig


def config(root: Path, name: str, model: Path, data: Path, **settings: Any) -> RunConfig:
    own = {"freeze": ("language",), "epochs": 3, "precision": "fp32", "log_every": 1, "save_every": 2}
    paths = (data / "train.jsonl", data / "eval.jsonl")
    return runs.config(root / name, model, *paths, **{**own, **settings})


def assert_alike(losses: list[float], expected: list[float]) -> None:
    """Compare the losses of each step of two trainings that add up in other orders."""
    assert len(losses) == len(expected)
    for step, (loss, wanted) in enumerate(zip(losses, expected, strict=True)):
        assert loss == pytest.approx(wanted, abs=tiny_metric_bound(step, 1e-3))


def test_a_cache_changes_nothing_but_what_is_computed(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path, smooth_adamw: None
) -> None:
    model, cache = tiny_models["llama"], str(tmp_path / "cache")
    course = []
    for name, settings in (("without", {}), ("first", {"cache": cache}), ("second", {"cache": cache})):
        run = config(tmp_path, name, model, text_data, **settings)
        train(run, progress=False, plots=False)
        course.append([record["loss"] for record in runs.records(Path(run.output), "step")])
        # 22 rows to train on, and 8 held out.
        assert len(FeatureCache(cache)) == (0 if name == "without" else 30)
    assert_alike(course[1], course[0])
    assert course[2] == course[1]


@pytest.fixture(scope="module")
def whole(
    tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, int]:
    """Return a run with a cache that was never killed, and the moments at which it could have been."""
    root = tmp_path_factory.mktemp("caching")
    run = config(root, "whole", tiny_models["llama"], text_data, cache=str(root / "cache"))
    status, num_moments = runs.in_child(run, adamw_eps=SMOOTH_EPS)
    assert status == 0
    return run, num_moments


@pytest.mark.external
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    whole: tuple[RunConfig, int], tiny_models: dict[str, Path], text_data: Path, tmp_path: Path
) -> None:
    expected, num_moments = whole
    killed = config(tmp_path, "killed", tiny_models["llama"], text_data, cache=str(tmp_path / "cache"))
    assert runs.in_child(killed, kill_at=num_moments // 2, adamw_eps=SMOOTH_EPS)[0] == -signal.SIGKILL
    assert runs.in_child(killed, resume=True, adamw_eps=SMOOTH_EPS)[0] == 0
    assert runs.remains(Path(killed.output)) == runs.remains(Path(expected.output))


@pytest.mark.external
def test_two_processes_share_a_cache(
    whole: tuple[RunConfig, int], tiny_models: dict[str, Path], text_data: Path, tmp_path: Path
) -> None:
    alone, _ = whole
    both = config(tmp_path, "both", tiny_models["llama"], text_data, cache=str(tmp_path / "cache"))
    assert runs.in_child(both, num_ranks=2, adamw_eps=SMOOTH_EPS)[0] == 0
    losses = [[record["loss"] for record in runs.records(Path(run.output), "step")] for run in (alone, both)]
    assert_alike(losses[1], losses[0])
    assert len(FeatureCache(str(both.cache))) == 30


@pytest.mark.external
def test_divided_weights_keep_nothing(tiny_models: dict[str, Path], text_data: Path, tmp_path: Path) -> None:
    run = config(
        tmp_path, "divided", tiny_models["llama"], text_data, parallel="fsdp", cache=str(tmp_path / "c")
    )
    status, _ = runs.in_child(run, num_ranks=2)
    assert status == 1
