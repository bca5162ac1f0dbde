"""A checkpoint with a trained reward head isn't taken for a bare backbone without a word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from basereward import Component, ConfigError, RewardModel
from basereward.backbones.trained_heads import trained_heads
from basereward.config.run import DataConfig, RunConfig, Source
from basereward.interop.importing import import_model
from basereward.plugins import PluginManager
from basereward.training.model_state import initial_model


def with_tensors(source: Path, directory: Path, *names: str) -> Path:
    """Return a copy of a checkpoint with a head's tensors of these names among its own."""
    shutil.copytree(source, directory)
    width = json.loads((source / "config.json").read_text())["hidden_size"]
    tensors = load_file(directory / "model.safetensors")
    head = {name: torch.ones(1 if name.endswith("bias") else (1, width)).reshape(1, -1)[0] for name in names}
    head = {name: tensor if name.endswith("bias") else tensor[None] for name, tensor in head.items()}
    save_file({**tensors, **head}, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    "name",
    [
        "score.weight",
        "v_head.summary.weight",
        "rm_head.dense.weight",
        "language_model.score.weight",
        "v_head.weight",
    ],
)
def test_a_trained_head_is_an_error_that_names_the_way_to_keep_it(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    source = with_tensors(tiny_models["qwen2"], tmp_path / "other", name)
    backbone = Component("causal-lm", {"model": str(source)})
    with pytest.raises(ConfigError) as error:
        RewardModel.build(backbone=backbone)
    assert str(error.value) == (
        f"{source} has a trained reward head ({name}), which a random one would replace; make a model "
        f"directory of it by `basereward import {source} --output DIR`, and go on from that by "
        'init = "DIR" at the top of the run file, or write fresh_head = true there to leave it behind'
    )
    assert RewardModel.build(backbone=backbone, fresh_head=True).backbone.dim > 0


def test_heads_in_files_and_in_shards_are_found(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    bare = tiny_models["qwen2"]
    assert trained_heads(str(bare)) == []
    for name in ("value_head.safetensors", "value_head.bin"):
        directory = tmp_path / name
        shutil.copytree(bare, directory)
        (directory / name).write_bytes(b"")
        assert trained_heads(str(directory)) == [name]
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    weights = {
        "model.norm.weight": "model-1.safetensors",
        "score.weight": "model-2.safetensors",
        "lm_head.weight": "x",
    }
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert trained_heads(str(sharded)) == ["score.weight"]
    assert trained_heads("owner/never-downloaded") == []


def test_a_training_goes_on_from_a_model_directory_by_init(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    ours = tmp_path / "ours"
    RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["qwen2"])})).save(ours)
    backbone = Component("causal-lm", {"model": str(ours)})
    with pytest.raises(ConfigError, match=r"reward head \(head\.safetensors\), .*; go on from it by init"):
        initial_model(run(backbone), PluginManager())
    assert initial_model(run(backbone, fresh_head=True), PluginManager()).backbone.dim > 0
    assert initial_model(run(backbone, init=str(ours)), PluginManager()).backbone.dim > 0
    # Members of an ensemble are made of one backbone with several heads.
    assert RewardModel.build(backbone=backbone).backbone.dim > 0


def run(backbone: Component, **settings: Any) -> RunConfig:
    return RunConfig(
        output="unused", backbone=backbone, data=DataConfig(train=(Source("trl", {"path": "a"}),)), **settings
    )


def test_an_imported_head_is_kept(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    source = with_tensors(tiny_models["qwen2"], tmp_path / "other", "score.weight")
    model, _ = import_model(source, tmp_path / "imported")
    weights = torch.cat([parameter.flatten() for parameter in model.head.parameters() if parameter.ndim == 2])
    assert bool((weights == 1).all())
