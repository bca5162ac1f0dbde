"""A sharded model's weights: each process reads its own rows of the hub's files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from sharded import load_handed_out, load_sharded, refused
from torch import Tensor

from basereward import RewardModel
from basereward.config import Component, LoraConfig
from basereward.plugins import PluginManager
from basereward.training.seeding import seed_everything

pytestmark = pytest.mark.external


def divided(source: Path, directory: Path, num_files: int) -> Path:
    """Write a model's directory with its weights in several files and their index."""
    shutil.copytree(source, directory)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = list(tensors)
    weight_map = {}
    for number in range(num_files):
        file = f"model-{number + 1:05d}-of-{num_files:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::num_files]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def load_whole(model: Path, backbone: dict[str, Any]) -> RewardModel:
    """Return the model as one process loads it."""
    kind = tiny.backbone_of(model.name.partition(" ")[0])
    seed_everything(0)
    return RewardModel.build(
        backbone=Component(kind, {"model": str(model), **backbone}), plugins=PluginManager()
    )


def assert_same_weights(
    found: tuple[dict[str, Tensor], dict[str, Tensor], str, int], whole: RewardModel
) -> None:
    weights, buffers, _, _ = found
    expected = whole.paradigm.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        # What is trained was converted to fp32, which changes no value.
        assert torch.equal(weights[name].to(value.dtype).float(), weights[name].float()), name
        assert torch.equal(weights[name].to(value.dtype), value), name
    for name, value in whole.paradigm.named_buffers():
        assert torch.equal(buffers[name], value), name


@pytest.mark.parametrize(
    ("kind", "backbone", "settings"),
    [
        ("llama", {}, {}),
        ("qwen2_5_vl", {"dtype": "bfloat16"}, {"freeze": ("vision",)}),
        ("qwen3_vl", {}, {}),
        ("internvl-qwen2", {}, {"freeze": ("language",)}),
    ],
)
def test_each_process_reads_its_rows_and_has_the_weights_of_a_whole_load(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    kind: str,
    backbone: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    model = divided(tiny_models[kind], tmp_path / kind, 7)
    whole = load_whole(model, backbone)
    sizes = [
        (len(value), value.nbytes // len(value))
        for path in model.glob("*.safetensors")
        for value in load_file(path).values()
    ]
    total = sum(rows * width for rows, width in sizes)
    for rank, found in enumerate(in_ranks(load_sharded, model, backbone, settings)):
        assert_same_weights(found, whole)
        _, _, description, num_bytes = found
        assert description.startswith("each process reads its own rows of the weights: this one ")
        # The first process has the row more of tensors with an odd number of rows.
        assert num_bytes == sum((rows + 1 - rank) // 2 * width for rows, width in sizes)
        assert num_bytes < 0.6 * total


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen3_vl_moe"])
def test_each_process_reads_its_own_experts(tiny_models: dict[str, Path], tmp_path: Path, kind: str) -> None:
    model = divided(tiny_models[kind], tmp_path / kind, 3)
    whole = load_whole(model, {})
    tensors = {name: value for path in model.glob("*.safetensors") for name, value in load_file(path).items()}
    for rank, found in enumerate(in_ranks(load_sharded, model, {}, {})):
        assert_same_weights(found, whole)
        # Two of four experts; of the rest half of the rows, the first process of an odd number one more.
        own = [
            value.nbytes * (int(expert[1]) // 2 == rank)
            if (expert := re.search(r"experts\.(\d+)\.", name))
            else (len(value) + 1 - rank) // 2 * (value.nbytes // len(value))
            for name, value in tensors.items()
        ]
        assert found[2].startswith("each process reads its own rows of the weights: this one ")
        assert found[3] == sum(own) < 0.6 * sum(value.nbytes for value in tensors.values())


@pytest.mark.parametrize(
    ("kind", "settings"), [("qwen3_moe", {}), ("qwen3_moe", {"shard_ranks": 1}), ("qwen3_vl_moe", {})]
)
def test_tensors_that_are_made_in_another_way_are_handed_out_by_the_main_process(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    model = divided(tiny_models[kind], tmp_path / kind, 3)
    whole = load_whole(model, {"dtype": "bfloat16"})
    for found in in_ranks(load_handed_out, model, {"dtype": "bfloat16"}, settings):
        assert_same_weights(found, whole)
        assert "the main process reads all weights and hands out the rows: " in found[2]


def test_a_shorter_decoder_reads_the_layers_that_it_keeps(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    model = divided(tiny_models["llama"], tmp_path / "llama", 3)
    settings = {"head": Component("mlp", {"layer": 2})}
    sizes = [
        value.nbytes
        for path in model.glob("*.safetensors")
        for name, value in load_file(path).items()
        if "layers.2." not in name
    ]
    found = in_ranks(load_sharded, model, {}, settings)
    assert sum(num_bytes for *_, num_bytes in found) == sum(sizes)


def test_a_model_directory_is_gone_on_from(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    whole = load_whole(tiny_models["llama"], {})
    whole.save(tmp_path / "llama")
    settings = {"init": str(tmp_path / "llama"), "backbone": Component("causal-lm", {"model": "none"})}
    for found in in_ranks(load_sharded, tmp_path / "llama", {}, settings):
        assert_same_weights(found, whole)


def test_a_damaged_file_of_the_model_that_is_gone_on_from_is_named_by_every_process(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    load_whole(tiny_models["llama"], {}).save(tmp_path / "llama")
    # One of the files that the second process verifies: the second by size.
    path = tmp_path / "llama" / "tokenizer.json"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    settings = {"init": str(tmp_path / "llama"), "backbone": Component("causal-lm", {"model": "none"})}
    message = f"{path} is not the file that was saved: its SHA-256 differs"
    assert in_ranks(refused, tmp_path / "llama", settings) == [message] * 2


@pytest.mark.parametrize("damage", ["missing", "misshapen", "unexpected"])
def test_a_tensor_that_is_wrong_is_named_by_every_process(
    tiny_models: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    model = divided(tiny_models["llama"], tmp_path / "llama", 1)
    [path] = model.glob("*.safetensors")
    tensors = load_file(path)
    name = "layers.1.mlp.down_proj.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "misshapen":
        tensors[name] = tensors[name][:, 1:].contiguous()
    else:
        name = "layers.1.mlp.other.weight"
        tensors[name] = torch.zeros(1)
    save_file(tensors, path, metadata={"format": "pt"})
    assert in_ranks(refused, model, {}) == [f"{model} has {damage} tensors: {name}"] * 2


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        ({"lora": LoraConfig(rank=2)}, "adapters are added to weights that are there"),
        ({"paradigm": Component("generative", {})}, "the paradigm generative has a language-model head"),
    ],
)
def test_what_each_process_has_to_read_whole_is_said(
    tiny_models: dict[str, Path], tmp_path: Path, settings: dict[str, Any], description: str
) -> None:
    model = tmp_path / "llama"
    shutil.copytree(tiny_models["llama"], model)
    if "paradigm" in settings:
        head = load_file(model / "model.safetensors")["embed_tokens.weight"]
        tensors = load_file(model / "model.safetensors")
        save_file({**tensors, "lm_head.weight": head.clone()}, model / "model.safetensors")
    for _, _, found, num_bytes in in_ranks(load_sharded, model, {}, settings):
        assert found.startswith(f"each process reads all weights: {description}")
        assert num_bytes == 0
