"""The repeated blocks of a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from torch import nn

from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import QwenVL


def build(directory: Path, kind: str) -> Backbone:
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
