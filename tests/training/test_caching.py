"""A training with a cache: the same course, for less work, killed and resumed or not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import runs

from basereward import train
from basereward.backbones.feature_cache import FeatureCache
from basereward.config import RunConfig


def config(root: Path, name: str, model: Path, data: Path, **settings: Any) -> RunConfig:
    own = {"freeze": ("language",), "epochs": 3, "precision": "fp32", "log_every": 1, "save_every": 2}
    paths = (data / "train.jsonl", data / "eval.jsonl")
    return runs.config(root / name, model, *paths, **{**own, **settings})


def test_a_cache_changes_nothing_but_what_is_computed(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path
) -> None:
    model, cache = tiny_models["llama"], str(tmp_path / "cache")
    course = []
    for name, settings in (("without", {}), ("first", {"cache": cache}), ("second", {"cache": cache})):
        run = config(tmp_path, name, model, text_data, **settings)
        train(run, progress=False)
        course.append([record["loss"] for record in runs.records(Path(run.output), "step")])
        # 22 rows to train on, and 8 held out.
        assert len(FeatureCache(cache)) == (0 if name == "without" else 30)
    assert course[1] == pytest.approx(course[0], rel=1e-5)
    assert course[2] == course[1]


def test_killed_and_resumed_it_ends_with_the_same_bytes(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path
) -> None:
    whole, killed = (
        config(tmp_path, name, tiny_models["llama"], text_data, cache=str(tmp_path / f"cache-{name}"))
        for name in ("whole", "killed")
    )
    status, num_moments = runs.in_child(whole)
    assert status == 0
    assert runs.in_child(killed, kill_at=num_moments // 2)[0] == -signal.SIGKILL
    assert runs.in_child(killed, resume=True)[0] == 0
    assert runs.remains(Path(killed.output)) == runs.remains(Path(whole.output))


def test_two_processes_share_a_cache(tiny_models: dict[str, Path], text_data: Path, tmp_path: Path) -> None:
    alone, both = (
        config(tmp_path, name, tiny_models["llama"], text_data, cache=str(tmp_path / f"cache-{name}"))
        for name in ("alone", "both")
    )
    assert runs.in_child(alone)[0] == 0
    assert runs.in_child(both, num_ranks=2)[0] == 0
    losses = [[record["loss"] for record in runs.records(Path(run.output), "step")] for run in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(FeatureCache(str(both.cache))) == 30


def test_divided_weights_keep_nothing(tiny_models: dict[str, Path], text_data: Path, tmp_path: Path) -> None:
    run = config(
        tmp_path, "divided", tiny_models["llama"], text_data, parallel="fsdp", cache=str(tmp_path / "c")
    )
    status, _ = runs.in_child(run, num_ranks=2)
    assert status == 1
