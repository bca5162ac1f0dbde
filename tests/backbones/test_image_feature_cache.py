"""Cached features of images give the same hidden states, and are never used after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, TINY_REWARD, within
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache
from basereward.backbones.qwen_vl import QwenVL
from basereward.comparison import Comparison
from basereward.media import Image, Video


def build(directory: Path, **options: Any) -> QwenVL:
    backbone = QwenVL(model=str(directory), **options)
    backbone.model.visual.requires_grad_(False)
    return backbone


def towers(backbone: QwenVL) -> list[int]:
    """Return a list that a number of patches is put in whenever the tower runs."""
    found: list[int] = []
    backbone.model.visual.register_forward_pre_hook(lambda module, inputs: found.append(len(inputs[0])))
    return found


def hidden(backbone: QwenVL, rows: list[Comparison]) -> Tensor:
    return backbone(backbone.forest(rows))


@pytest.fixture(params=tiny.VL_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each architecture's name in turn."""
    return request.param


def test_hidden_states_are_the_same_and_the_tower_runs_once(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rows = tiny.comparisons()
    backbone = build(tiny_models[kind])
    expected = hidden(backbone, rows)
    with FeatureCache(tmp_path) as cache:
        backbone.attach_feature_cache(cache, "weights")
        ran = towers(backbone)
        first = hidden(backbone, rows)
        torch.testing.assert_close(first, expected, **within(TINY_REWARD))
        assert torch.equal(hidden(backbone, rows), first)
        # Patches of 14 x 14: images of 56 x 56, 84 x 56, 56 x 112 and 140 x 84.
        assert ran == [16, 24, 32, 60]
        assert len(cache) == 4
    later = build(tiny_models[kind])
    sizes = [later.encode(row).num_patches for row in rows]
    later.attach_feature_cache(FeatureCache(tmp_path), "weights")
    assert sizes == [later.encode(row).num_patches for row in rows] == [0, 16, 24 + 32, 60]
    ran = towers(later)
    assert torch.equal(hidden(later, rows), first)
    assert not ran


def test_features_do_not_depend_on_what_they_were_computed_beside(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rows = tiny.comparisons()
    found = []
    for number, batches in enumerate(([rows], [rows[2:], rows[:2]], [[row] for row in reversed(rows)])):
        backbone = build(tiny_models[kind])
        backbone.attach_feature_cache(FeatureCache(tmp_path / str(number)), "weights")
        for batch in batches:
            hidden(backbone, batch)
        found.append(hidden(backbone, rows))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_known_and_new_images_and_videos_stay_in_their_order(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    images = [Image(tiny.image(56 + 28 * number, 56, seed=number)) for number in range(4)]
    backbone = build(tiny_models[kind])
    contents: list[list[object]] = [[images[2], "and", images[0], "alike"], ["text"], [images[3], "a"]]
    if not kind.startswith("qwen3_vl"):
        video = Video([tiny.image(seed=number) for number in range(3)])
        contents += [[images[1], "then", video], [video, "then", images[0]]]
    rows = [Comparison([{"role": "user", "content": content}], ["a cat", "a dog"]) for content in contents]
    expected = hidden(backbone, rows)
    backbone.attach_feature_cache(FeatureCache(tmp_path), "weights")
    hidden(backbone, [Comparison("what", ["a"], images=[images[number]]) for number in (0, 3)])
    torch.testing.assert_close(hidden(backbone, rows), expected, **within(TINY_REWARD))
    torch.testing.assert_close(hidden(backbone, rows), expected, **within(TINY_REWARD))


def test_gradients_of_what_is_trained_are_the_same(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    found = []
    for cached in (False, True):
        backbone = build(tiny_models[kind])
        if cached:
            backbone.attach_feature_cache(FeatureCache(tmp_path), "weights")
            hidden(backbone, tiny.comparisons())
        hidden(backbone, tiny.comparisons()).square().sum().backward()
        named = backbone.named_parameters()
        found.append({name: value.grad for name, value in named if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, **within(TINY_GRADIENT), msg=name)


@pytest.mark.parametrize("change", ["max_pixels", "dtype", "weights", "mean", "precision"])
def test_what_decides_features_decides_what_is_found(
    tiny_models: dict[str, Path], tmp_path: Path, change: str
) -> None:
    rows = tiny.comparisons()[1:2]
    with FeatureCache(tmp_path) as cache:
        first = build(tiny_models["qwen2_5_vl"])
        first.attach_feature_cache(cache, "weights")
        hidden(first, rows)
    options = {"max_pixels": {"max_pixels": 28 * 28 * 2}, "dtype": {"dtype": "bfloat16"}}.get(change, {})
    found = []
    for cached in (True, False):
        backbone = build(tiny_models["qwen2_5_vl"], **options)
        ran = towers(backbone)
        if cached:
            precision = "torch.bfloat16" if change == "precision" else "weights"
            backbone.attach_feature_cache(FeatureCache(tmp_path), precision)
        if change == "weights":
            with torch.no_grad():
                next(backbone.model.visual.merger.parameters()).mul_(1.1)
        elif change == "mean":
            backbone.image_processor.image_mean = [0.4, 0.5, 0.5]
        with torch.autocast("cpu", torch.bfloat16, enabled=change == "precision"):
            found.append(hidden(backbone, rows))
        assert len(ran) == 1
    assert torch.equal(*found)


def test_features_of_a_tower_that_is_trained_are_not_kept(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    backbone = build(tiny_models[kind])
    backbone.parts()["projector"].requires_grad_(True)
    cache = FeatureCache(tmp_path)
    backbone.attach_feature_cache(cache, "weights")
    hidden(backbone, tiny.comparisons())
    assert len(cache) == 0
