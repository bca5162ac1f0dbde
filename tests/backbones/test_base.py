"""The repeated blocks of a backbone, and the settings that it is saved with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from torch import nn

from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import QwenVL


def build(directory: Path, kind: str) -> Backbone:
    if kind in tiny.INTERNVL_KINDS:
        return InternVL(model=str(directory))
    return (QwenVL if kind in tiny.VL_KINDS else CausalLM)(model=str(directory))


@pytest.mark.parametrize("kind", [*tiny.VL_KINDS, *tiny.LM_KINDS])
def test_blocks_are_the_vision_blocks_and_then_the_decoder_layers(
    tiny_models: dict[str, Path], kind: str
) -> None:
    backbone = build(tiny_models[kind], kind)
    wanted: list[nn.Module] = []
    if kind in tiny.VL_KINDS:
        visual = backbone.model.visual
        wanted += [*visual.blocks, *getattr(visual, "deepstack_merger_list", ())]
    wanted += backbone.decoder.decoder.layers
    assert [id(block) for block in backbone.blocks()] == [id(block) for block in wanted]


@pytest.mark.parametrize("kind", tiny.INTERNVL_KINDS)
def test_blocks_of_internvl_are_those_of_both_towers(tiny_models: dict[str, Path], kind: str) -> None:
    backbone = InternVL(model=str(tiny_models[kind]))
    model = backbone.model
    assert backbone.blocks() == [*model.vision_tower.encoder.layer, *model.language_model.layers]


def test_the_only_layer_of_a_truncated_decoder_is_a_block(tiny_models: dict[str, Path]) -> None:
    backbone = build(tiny_models["llama"], "llama")
    backbone.truncate(1)
    assert backbone.blocks() == [backbone.model.layers[0]]


def test_blocks_lie_in_none_of_each_other() -> None:
    class Nested(CausalLM):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            inner = [nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]) for _ in range(2)]
            self.layers = nn.ModuleList(nn.Sequential(one) for one in inner)
            self.mixed = nn.ModuleList([nn.Linear(1, 1), nn.Sequential(nn.ModuleList([nn.Tanh()]))])

    nested = Nested()
    tanh = nested.mixed[1][0][0]
    assert nested.blocks() == [nested.layers[0], nested.layers[1], tanh]


def caching(directory: Path) -> dict[str, Any]:
    """Return what each section of a model's settings says of keeping keys and values; None for nothing."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    sections = {"": config, **{name: part for name, part in config.items() if isinstance(part, dict)}}
    return {name: part.get("use_cache") for name, part in sections.items()}


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl", "qwen3_vl", "internvl-qwen2"])
@pytest.mark.parametrize("is_cached", [True, False])
def test_a_saved_model_keeps_keys_and_values_as_the_model_that_it_was_made_of(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str, is_cached: bool
) -> None:
    # Those who write texts with it read everything before a token again without them.
    source = tmp_path / "source"
    shutil.copytree(tiny_models[kind], source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.get("text_config", config)["use_cache"] = is_cached
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    build(source, kind).save(tmp_path / "saved")
    assert caching(tmp_path / "saved") == caching(source)
    assert is_cached in caching(source).values()
