"""Mixtures of experts under autocast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from basereward import RewardModel
from basereward.config import Component
from basereward.plugins import PluginManager


def experts_of(model: RewardModel) -> list[nn.Module]:
    return [
        module
        for module in model.backbone.modules()
        if any(weight.ndim == 3 for weight in module.parameters(recurse=False))
    ]


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen3_vl_moe"])
def test_experts_with_weights_in_fp32_are_computed_in_the_type_of_an_autocast(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model = RewardModel.build(
        backbone=Component(tiny.backbone_of(kind), {"model": str(tiny_models[kind])}), plugins=PluginManager()
    )
    grouped_mm = nn.functional.grouped_mm
    dtypes: list[torch.dtype] = []

    def noted(inputs: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        dtypes.append(weight.dtype)
        return grouped_mm(inputs, weight, **options)

    monkeypatch.setattr(nn.functional, "grouped_mm", noted)
    rows = tiny.comparisons(images=kind == "qwen3_vl_moe")
    with torch.autocast("cpu", torch.bfloat16):
        rewards = model.paradigm.score(rows)
        model.paradigm.loss(rows).loss.backward()
    layers = experts_of(model)
    assert len(layers) == 3
    # Two products a layer and pass.
    assert dtypes == [torch.bfloat16] * (2 * 2 * len(layers))
    for layer in layers:
        for weight in layer.parameters():
            assert weight.dtype == torch.float32
            assert weight.grad is not None
            assert weight.grad.dtype == torch.float32
            assert weight.grad.abs().sum() > 0
    # As with weights that are in bf16 themselves, which no cast is needed for.
    for layer in layers:
        layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.paradigm.score(rows), rewards)
    assert model.paradigm.score(rows).dtype == torch.float32


def test_without_autocast_experts_are_as_they_were(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Component("causal-lm", {"model": str(tiny_models["qwen3_moe"])})
    rows = tiny.comparisons(images=False)
    torch.manual_seed(0)
    rewards = RewardModel.build(backbone=backbone, plugins=PluginManager()).score(rows)
    monkeypatch.setattr("basereward.backbones.transformers_backbone.autocast_experts", lambda model: None)
    torch.manual_seed(0)
    plain = RewardModel.build(backbone=backbone, plugins=PluginManager())
    assert plain.score(rows) == rewards
