"""The last layer is computed only where it is read, and nothing that is read differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, within
from tiny import LM_KINDS, VL_KINDS
from torch import Tensor, nn

from basereward import RewardModel
from basereward.backbones.last_layer import can_skip_rows
from basereward.config import Component
from basereward.losses import LossOutput
from basereward.paradigms.scalar import Scalar
from basereward.protocols import Head
from basereward.training.activation_checkpointing import checkpoint_activations

TOLERANCE = within(TINY_GRADIENT)


@pytest.fixture(params=[*VL_KINDS, *LM_KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Return each architecture's name in turn."""
    return request.param


def build(directory: Path, kind: str, *, prune: bool, share: bool = True, **head: Any) -> RewardModel:
    torch.manual_seed(0)
    options = {"share_prompts": share, "prune_last_layer": prune}
    return RewardModel.build(
        backbone=Component("qwen-vl" if kind in VL_KINDS else "causal-lm", {"model": str(directory)}),
        head=Component("mlp", head),
        paradigm=Component("scalar", options),
    )


def loss_of(model: RewardModel, kind: str) -> LossOutput:
    return model.paradigm.loss(tiny.comparisons(images=kind in VL_KINDS))


def gradients_of(model: RewardModel, kind: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the rewards, and the gradient of every parameter that has one."""
    comparisons = tiny.comparisons(images=kind in VL_KINDS)
    rewards = model.paradigm.score(comparisons)
    model.paradigm.loss(comparisons).loss.backward()
    named = model.paradigm.named_parameters()
    return rewards, {name: value.grad for name, value in named if value.grad is not None}


def rows_of_last_mlp(model: RewardModel, kind: str) -> int:
    """Return the number of rows that the last layer's MLP computes for a batch."""
    counts: list[int] = []
    mlp = model.backbone.decoder.decoder.layers[-1].mlp
    handle = mlp.register_forward_pre_hook(lambda module, inputs: counts.append(inputs[0][..., 0].numel()))
    model.paradigm.score(tiny.comparisons(images=kind in VL_KINDS))
    handle.remove()
    return counts[0]


def assert_alike(pruned: RewardModel, whole: RewardModel, kind: str) -> None:
    rewards, gradients = gradients_of(pruned, kind)
    expected, wanted = gradients_of(whole, kind)
    torch.testing.assert_close(rewards, expected, **TOLERANCE)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, **TOLERANCE, msg=name)


def assert_pruned_as_whole(directory: Path, kind: str, **options: Any) -> None:
    pruned, whole = (build(directory, kind, prune=prune, **options) for prune in (True, False))
    assert_alike(pruned, whole, kind)
    # Comparisons of 2, 3, 4 and 2 responses.
    assert rows_of_last_mlp(pruned, kind) == 11
    assert rows_of_last_mlp(whole, kind) > 100


@pytest.mark.usefixtures("each_way_of_attending")
def test_rewards_and_gradients_are_those_of_the_whole_layer(tiny_models: dict[str, Path], kind: str) -> None:
    assert_pruned_as_whole(tiny_models[kind], kind)


@pytest.mark.parametrize("options", [{"share": False}, {"layer": 2}, {"layer": 1}], ids=str)
def test_so_they_are_without_sharing_and_of_a_middle_layer(
    tiny_models: dict[str, Path], kind: str, options: dict[str, Any]
) -> None:
    assert_pruned_as_whole(tiny_models[kind], kind, **options)


def test_a_head_that_reads_every_token_gets_every_token(tiny_models: dict[str, Path]) -> None:
    pruned, whole = (
        build(tiny_models["llama"], "llama", prune=prune, pooling="mean") for prune in (True, False)
    )
    assert_alike(pruned, whole, "llama")
    assert rows_of_last_mlp(pruned, "llama") > 100


def test_a_head_that_does_not_say_what_it_reads_gets_every_token(tiny_models: dict[str, Path]) -> None:
    class Silent(Head, nn.Module):
        def __init__(self, head: nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, *given: Any) -> Tensor:
            return self.head(*given)

    model = build(tiny_models["llama"], "llama", prune=True)
    assert rows_of_last_mlp(model, "llama") == 11
    paradigm = Scalar(model.backbone, Silent(model.paradigm.head), model.paradigm.criterion)
    assert rows_of_last_mlp(RewardModel(paradigm, {}), "llama") > 100


def test_activation_checkpointing_computes_the_same_rows(tiny_models: dict[str, Path], kind: str) -> None:
    pruned, whole = (build(tiny_models[kind], kind, prune=prune) for prune in (True, False))
    checkpoint_activations(pruned.backbone.blocks())
    assert_alike(pruned, whole, kind)


def test_adapters_compute_the_same(tiny_models: dict[str, Path]) -> None:
    from basereward.config import LoraConfig, TrainConfig
    from basereward.training.lora import Adapters

    pruned, whole = (build(tiny_models["qwen2"], "qwen2", prune=prune) for prune in (True, False))
    rows_of_last_mlp(pruned, "qwen2")  # whose hooks are then on modules that adapters take the places of
    for model in (pruned, whole):
        torch.manual_seed(1)
        Adapters(model.backbone, TrainConfig(lora=LoraConfig(rank=2)), "")
        for name, value in model.backbone.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.05)
    assert_alike(pruned, whole, "qwen2")
    assert rows_of_last_mlp(pruned, "qwen2") == 11


def test_in_bf16_it_differs_by_rounding(tiny_models: dict[str, Path], kind: str) -> None:
    pruned, whole = (build(tiny_models[kind], kind, prune=prune) for prune in (True, False))
    comparisons = tiny.comparisons(images=kind in VL_KINDS)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (model.paradigm.score(comparisons) for model in (pruned, whole))
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)


def test_saved_files_are_the_same(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = build(tiny_models["llama"], "llama", prune=True)
    model.save(tmp_path / "before")
    loss_of(model, "llama")
    model.save(tmp_path / "after")
    files = [sorted((tmp_path / name).rglob("*")) for name in ("before", "after")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_only_layers_of_a_known_kind_are_pruned() -> None:
    from transformers import AutoConfig, AutoModel

    sizes = tiny.text_config(num_hidden_layers=1)
    kinds = {"llama": True, "qwen3": True, "mistral": True, "gemma2": False, "olmo2": False, "phi3": False}
    for kind, expected in kinds.items():
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
        assert can_skip_rows(model.layers[-1]) == expected, kind
