"""Activation checkpointing: the same gradients from less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from basereward import RewardModel
from basereward.config import Component
from basereward.training.activation_checkpointing import checkpoint_activations


def model_of(directory: Path, name: str) -> RewardModel:
    torch.manual_seed(0)
    backbone = Component(name, {"model": str(directory)})
    return RewardModel.build(backbone=backbone, head=Component("mlp", {"dropout": 0.2}))


def gradients(model: RewardModel, *, images: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradient of every parameter, and the bytes kept for the backward pass."""
    kept: dict[int, int] = {}
    owned = {parameter.untyped_storage().data_ptr() for parameter in model.paradigm.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.paradigm.train()
    torch.manual_seed(7)
    comparisons = tiny.comparisons(images=images)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.paradigm.loss(comparisons)
    output.loss.backward()
    named = model.paradigm.named_parameters()
    return {name: item.grad for name, item in named if item.grad is not None}, sum(kept.values())


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [("llama", "causal-lm"), ("qwen2_5_vl", "qwen-vl"), ("internvl-qwen2", "internvl")],
)
def test_gradients_are_the_same_bit_for_bit_and_less_is_kept(
    tiny_models: dict[str, Path], kind: str, backbone: str
) -> None:
    images = backbone != "causal-lm"
    plain, sparing = (model_of(tiny_models[kind], backbone) for _ in range(2))
    for model in (plain, sparing):
        # The random numbers of dropout within a layer must be drawn again as they were.
        for layer in model.backbone.decoder.decoder.layers:
            layer.self_attn.attention_dropout = 0.0
            layer.mlp.register_forward_hook(lambda module, inputs, output: torch.dropout(output, 0.3, True))
    checkpoint_activations(sparing.backbone.blocks())
    expected, bytes_plain = gradients(plain, images=images)
    found, bytes_sparing = gradients(sparing, images=images)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert bytes_sparing < 0.5 * bytes_plain
    assert sparing.paradigm.state_dict().keys() == plain.paradigm.state_dict().keys()


def test_what_needs_no_gradient_is_computed_once(tiny_models: dict[str, Path]) -> None:
    model = model_of(tiny_models["llama"], "causal-lm")
    expected = model.score(tiny.comparisons(images=False))
    checkpoint_activations(model.backbone.blocks())
    assert model.score(tiny.comparisons(images=False)) == expected
