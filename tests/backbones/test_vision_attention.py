"""The vision tower's attention equals that of transformers, window by window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from rounding import rounding_bound
from torch import Tensor

from basereward.backbones.qwen_vl import QwenVL

pytestmark = pytest.mark.usefixtures("each_way_of_attending")

# Of 1 by 1 to 4 by 4 windows, whole ones and cut ones, and a picture of one window.
PICTURES = [(56, 56, 1), (84, 56, 2), (56, 112, 3), (140, 84, 4), (28, 28, 5)]

# Features of about 1 after a norm; two layers of sums over 16 to 32 terms, for four products, and a merger:
# 2e-5 in fp32, where both forms are about 1e-6 from those of fp64, and 3e-14 in fp64.
NUM_ROUNDINGS = 2 * 5 * 32 + 64


def inputs(backbone: QwenVL) -> tuple[Tensor, Tensor]:
    """Return the patches of all pictures, and their grids."""
    output = backbone.image_processor(
        images=[tiny.image(*picture) for picture in PICTURES], return_tensors="pt"
    )
    return output["pixel_values"], output["image_grid_thw"]


def features_and_gradients(backbone: QwenVL, implementation: str) -> tuple[Tensor, dict[str, Tensor]]:
    backbone.model.set_attn_implementation({"vision_config": implementation})
    backbone.zero_grad()
    patches, grids = inputs(backbone)
    patches = patches.to(backbone.model.dtype)
    output = backbone.model.get_image_features(patches, grids, return_dict=True)
    features = torch.cat(output.pooler_output)
    (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    visual = backbone.model.visual
    gradients = {name: one.grad for name, one in visual.named_parameters() if one.grad is not None}
    return features.detach(), gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("kind", tiny.VL_KINDS)
def test_features_and_gradients_are_those_of_sdpa(
    tiny_models: dict[str, Path], kind: str, dtype: torch.dtype
) -> None:
    backbone = QwenVL(model=str(tiny_models[kind]))
    backbone.model.to(dtype)
    atol = rounding_bound(NUM_ROUNDINGS, dtype)
    features, gradients = features_and_gradients(backbone, QwenVL.vision_attention())
    expected, expected_gradients = features_and_gradients(backbone, "sdpa")
    torch.testing.assert_close(features, expected, atol=atol, rtol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        # A sum over the 83 features, weighted by up to 1.
        largest = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(gradients[name], gradient, atol=10 * atol * largest, rtol=0, msg=name)


@pytest.mark.parametrize("kind", tiny.VL_KINDS)
def test_arguments_made_of_the_grids_ahead_are_those_of_the_tower(
    tiny_models: dict[str, Path], kind: str
) -> None:
    backbone = QwenVL(model=str(tiny_models[kind]))
    forest = backbone.forest(tiny.comparisons())
    made = [name for name in forest.media if name.startswith("tower.")]
    assert len(made) == {"qwen2_vl": 3, "qwen2_5_vl": 6, "qwen3_vl": 5}[kind.removesuffix("_moe")]
    without = {name: value for name, value in forest.media.items() if name not in made}
    with torch.no_grad():
        assert torch.equal(backbone(forest), backbone(replace(forest, media=without)))
