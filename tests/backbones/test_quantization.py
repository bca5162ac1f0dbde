"""Backbones in 4 bits: what they save, what may be trained, and adapters on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from torch import nn

from basereward import ConfigError, RewardModel
from basereward.backbones import quantization
from basereward.config import Component, LoraConfig, TrainConfig
from basereward.extras import install_command
from basereward.training import parameter_groups
from basereward.training.distributed import ProcessGroup
from basereward.training.lora import Adapters
from basereward.training.parallelize import ParadigmModule, apply_fsdp


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose rows are whole blocks of 64 weights."""
    directory = tmp_path_factory.mktemp("wide") / "llama"
    return tiny.save_causal_lm(directory, hidden_size=64, intermediate_size=128)


def build(directory: Path, **options: Any) -> RewardModel:
    torch.manual_seed(3)
    return RewardModel.build(backbone=Component("causal-lm", {"model": str(directory), **options}))


COMPARISONS = tiny.comparisons(images=False)


def test_linear_layers_take_an_eighth_of_the_memory_and_stay_close(wide: Path) -> None:
    plain, model = build(wide), build(wide, quantize="4bit")
    layers = [module for module in model.backbone.modules() if quantization.is_quantized(module)]
    assert len(layers) == 3 * 7
    # Half a byte of four; their scales come on top, a byte for each 64.
    before, after = plain.backbone.model.layers[0].mlp.up_proj, model.backbone.model.layers[0].mlp.up_proj
    assert after.weight.nbytes * 8 == before.weight.nbytes
    weight = before.weight.detach()
    error = (quantization.plain_weight(after) - weight).abs().mean() / weight.abs().mean()
    # Rounding normal values to NF4 in blocks of 64 moves them by 9 % on average.
    assert 0.08 < float(error) < 0.11
    assert model.backbone.model.embed_tokens.weight.dtype == torch.float32


def test_scores_are_the_same_in_training_and_out_of_it(wide: Path) -> None:
    model = build(wide, quantize="4bit")
    expected = model.score(COMPARISONS)
    model.paradigm.train()
    assert model.paradigm.score(COMPARISONS).tolist() == [reward for group in expected for reward in group]
    assert model.score(COMPARISONS) == expected


def test_a_saved_model_has_plain_weights_and_the_same_rewards(wide: Path, tmp_path: Path) -> None:
    model = build(wide, quantize="4bit")
    expected = model.score(COMPARISONS)
    model.save(tmp_path / "model")
    assert model.score(COMPARISONS) == expected
    loaded = RewardModel.load(tmp_path / "model")
    assert not any(quantization.is_quantized(module) for module in loaded.backbone.modules())
    for found, known in zip(loaded.score(COMPARISONS), expected, strict=True):
        assert found == pytest.approx(known, abs=TINY_REWARD)
    assert "quantization_config" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_adapters_on_a_quantized_model_are_merged_into_plain_weights(wide: Path, tmp_path: Path) -> None:
    model = build(wide, quantize="4bit")
    adapters = Adapters(model.backbone, TrainConfig(lora=LoraConfig(rank=4)), str(wide))
    config = TrainConfig(lora=LoraConfig(rank=4), lr=1e-2)
    parts = parameter_groups.trainable_parts(model.part_parameters(), config)
    assert {part: len(parameters) for part, parameters in parts.items()} == {"language": 42, "head": 4}
    optimizer = torch.optim.AdamW([item for items in parts.values() for item in items], lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        output = model.paradigm.loss(COMPARISONS)
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < losses[0]
    expected = model.score(COMPARISONS)
    with adapters.merged():
        model.save(tmp_path / "model")
    assert model.score(COMPARISONS) == expected
    for found, known in zip(RewardModel.load(tmp_path / "model").score(COMPARISONS), expected, strict=True):
        assert found == pytest.approx(known, abs=TINY_REWARD)


def test_quantized_weights_are_not_trained_themselves(wide: Path) -> None:
    parts = build(wide, quantize="4bit").part_parameters()
    with pytest.raises(ConfigError) as caught:
        parameter_groups.trainable_parts(parts, TrainConfig())
    assert str(caught.value) == (
        "train: the weights of part 'language' are quantized and can't be trained; add adapters to it with "
        "[train.lora], or freeze it"
    )
    assert parameter_groups.trainable_parts(parts, TrainConfig(freeze=("language",))).keys() == {"head"}


def test_quantized_weights_are_not_divided_among_processes(wide: Path) -> None:
    module = ParadigmModule(build(wide, quantize="4bit").paradigm)
    with pytest.raises(ConfigError) as caught:
        apply_fsdp(module, ProcessGroup(0, 2), shard_ranks=None, bf16=False)
    assert str(caught.value) == ("train.parallel is 'fsdp', which can't divide quantized weights; use 'ddp'")


def test_rows_that_are_no_whole_blocks_are_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(tiny_models["llama"], quantize="4bit")
    assert str(caught.value) == (
        "backbone option quantize: layer layers.0.self_attn.q_proj has rows of 32 weights; 4-bit weights "
        "come in blocks of 64"
    )


def test_a_library_that_is_missing_is_named(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError) as caught:
        build(wide, quantize="4bit")
    assert str(caught.value) == (
        "backbone option quantize needs bitsandbytes (import of bitsandbytes halted; None in sys.modules); "
        f"{install_command('quantized')}"
    )


def test_plain_layers_are_not_quantized() -> None:
    assert not quantization.is_quantized(nn.Linear(2, 2))
