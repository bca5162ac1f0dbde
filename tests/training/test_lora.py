"""Low-rank adapters: what trains, what is saved, and that saving changes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from rounding import TINY_REWARD
from torch import Tensor
from transformers import AutoModel

from basereward import ConfigError, RewardModel
from basereward.config import Component, LoraConfig, TrainConfig
from basereward.extras import install_command
from basereward.training import parameter_groups
from basereward.training.lora import Adapters

KINDS = {"llama": "causal-lm", "qwen2_5_vl": "qwen-vl", "internvl-qwen2": "internvl"}


def adapted(directory: Path, *, dtype: str = "float32", **lora: Any) -> tuple[RewardModel, Adapters]:
    """Return a model with adapters that do something."""
    torch.manual_seed(0)
    kind = KINDS[directory.name]
    model = RewardModel.build(backbone=Component(kind, {"model": str(directory), "dtype": dtype}))
    config = TrainConfig(lora=LoraConfig(**{"rank": 4, **lora}))
    adapters = Adapters(model.backbone, config, str(directory))
    # As PEFT makes them, one factor of each product is zero.
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model, adapters


def trained_names(model: RewardModel) -> dict[str, set[str]]:
    return {
        part: {".".join(name.split(".")[-4:]) for name, found in named if found.requires_grad}
        for part, named in (
            (part, list(module.named_parameters())) for part, module in model.backbone.parts().items()
        )
    }


def state(model: RewardModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.paradigm.state_dict().items()}


def test_adapters_and_the_head_train_and_nothing_else(tiny_models: dict[str, Path]) -> None:
    model, _ = adapted(tiny_models["qwen2_5_vl"])
    names = trained_names(model)
    assert not names["vision"] | names["projector"]
    leaves = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert names["language"] == {
        f"{leaf}.{factor}.default.weight" for leaf in leaves for factor in ("lora_A", "lora_B")
    }
    parts = parameter_groups.trainable_parts(
        model.part_parameters(), TrainConfig(lora=LoraConfig(), lr_parts={"language": 1e-4, "head": 1e-3})
    )
    # 3 layers of 7 linear layers with two factors each; the head's two layers have weights and biases.
    assert {part: len(parameters) for part, parameters in parts.items()} == {"language": 42, "head": 4}


def test_layers_may_be_chosen_by_the_ends_of_their_names_and_by_part(tiny_models: dict[str, Path]) -> None:
    model, _ = adapted(
        tiny_models["qwen2_5_vl"],
        targets=("self_attn.q_proj", "qkv"),
        parts=("vision", "language"),
        whole_parts=("projector",),
    )
    names = trained_names(model)
    assert names["language"] == {"q_proj.lora_A.default.weight", "q_proj.lora_B.default.weight"}
    assert names["vision"] == {"qkv.lora_A.default.weight", "qkv.lora_B.default.weight"}
    assert names["projector"] == {name for name, _ in model.backbone.parts()["projector"].named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [{}, {"rslora": True, "dropout": 0.1}, {"dora": True}], ids=str)
def test_a_saved_model_holds_the_adapters_in_its_weights(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str, lora: dict[str, Any]
) -> None:
    model, adapters = adapted(tiny_models[kind], **lora)
    comparisons = tiny.comparisons(images=kind != "llama")
    expected = model.score(comparisons)
    bare = RewardModel.build(backbone=Component(KINDS[kind], {"model": str(tiny_models[kind])}))
    before = state(model)
    with adapters.merged():
        model.save(tmp_path / "model")
    loaded = RewardModel.load(tmp_path / "model")
    assert loaded.backbone.state_dict().keys() == bare.backbone.state_dict().keys()
    for found, known in zip(loaded.score(comparisons), expected, strict=True):
        assert found == pytest.approx(known, abs=TINY_REWARD)
    # The adapters do something, and saving has left no trace.
    loaded.backbone.load_state_dict(bare.backbone.state_dict())
    assert abs(loaded.score(comparisons)[0][0] - expected[0][0]) > 1e-3
    after = state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.score(comparisons) == expected


def test_weights_of_less_precision_are_merged_in_fp32(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, adapters = adapted(tiny_models["llama"], dtype="bfloat16")
    layer = model.backbone.model.layers[0].self_attn.q_proj
    before = layer.base_layer.weight.clone()
    with adapters.merged():
        merged = model.backbone.model.layers[0].self_attn.q_proj.weight
        delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * (32 / 4)
        torch.testing.assert_close(merged, before.float() + delta)
    assert torch.equal(layer.base_layer.weight, before)
    assert layer.base_layer.weight.dtype == torch.bfloat16


# PeftModel asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_alone_are_saved_as_peft_reads_them(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    model, adapters = adapted(tiny_models[kind])
    adapters.save(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, str(tiny_models[kind]))
    assert config["target_modules"] == sorted(config["target_modules"])
    base = AutoModel.from_pretrained(config["base_model_name_or_path"])
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    with adapters.merged():
        ours = dict(model.backbone.model.state_dict())
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(value, ours[name])


@pytest.mark.parametrize(
    ("lora", "freeze", "message"),
    [
        (
            {"parts": ("langauge",)},
            (),
            "train.lora.parts: the backbone has no part 'langauge'; did you mean 'language'? parts: vision, "
            "projector, language",
        ),
        (
            {"whole_parts": ("head",)},
            (),
            "train.lora.whole_parts: the backbone has no part 'head'; parts: vision, projector, language",
        ),
        ({}, ("language",), "train.lora.parts: part 'language' is in train.freeze, too; take one out"),
        (
            {"whole_parts": ("language",)},
            (),
            "train.lora.whole_parts: part 'language' gets adapters; take it out of one list",
        ),
        (
            {"targets": ("q_proj", "k_prj")},
            (),
            "train.lora.targets: no linear layer of language is called 'k_prj'; did you mean 'k_proj'? "
            "names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        ),
    ],
)
def test_what_the_backbone_lacks_is_named(
    tiny_models: dict[str, Path], lora: dict[str, Any], freeze: tuple[str, ...], message: str
) -> None:
    backbone = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})
    ).backbone
    with pytest.raises(ConfigError) as caught:
        Adapters(backbone, TrainConfig(lora=LoraConfig(**lora), freeze=freeze), "")
    assert str(caught.value) == message


def test_a_missing_library_is_named(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError) as caught:
        adapted(tiny_models["llama"])
    assert str(caught.value) == (
        f"[train.lora] needs PEFT (import of peft halted; None in sys.modules); {install_command('train')}"
    )


def test_without_adapters_there_is_nothing_to_merge_or_save(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    model = RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["llama"])}))
    adapters = Adapters(model.backbone, TrainConfig(), "")
    before = state(model)
    with adapters.merged():
        assert state(model).keys() == before.keys()
    adapters.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
