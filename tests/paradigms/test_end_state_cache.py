"""Kept hidden states: the same rewards and gradients, for nothing that has changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, within
from torch import Tensor

from basereward import Comparison, RewardModel
from basereward.backbones.feature_cache import FeatureCache
from basereward.config import Component
from basereward.forest import Forest

TOLERANCE = within(TINY_GRADIENT)
KINDS = ("llama", "qwen2_5_vl", "qwen3_vl")


def build(
    directory: Path, kind: str, *, frozen: bool = True, head: Any = None, **options: Any
) -> RewardModel:
    torch.manual_seed(0)
    name = "qwen-vl" if kind in tiny.VL_KINDS else "causal-lm"
    model = RewardModel.build(
        backbone=Component(name, {"model": str(directory), **options}),
        head=Component("mlp", head or {}),
        loss=Component("bradley-terry"),
    )
    model.backbone.requires_grad_(not frozen)
    model.paradigm.train()
    return model


def passes(model: RewardModel) -> list[int]:
    """Return a list that a number of responses is put in whenever the backbone runs."""
    found: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: found.append(len(inputs[0].ends)))
    return found


def loss_and_gradients(model: RewardModel, rows: list[Comparison]) -> list[Tensor]:
    model.paradigm.zero_grad()
    output = model.paradigm.loss(rows)
    output.loss.backward()
    return [output.loss.detach(), *(parameter.grad for parameter in model.head.parameters())]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_gradients_and_rewards_are_the_same(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rows = tiny.comparisons(images=kind != "llama")
    plain, cached = (build(tiny_models[kind], kind, head={"dropout": 0.3}) for _ in range(2))
    ran = passes(cached)
    with FeatureCache(tmp_path) as cache:
        cached.paradigm.attach_feature_cache(cache)
        found = []
        for model in (plain, cached, cached):
            torch.manual_seed(5)  # of the head's dropout
            found.append(loss_and_gradients(model, rows))
    for expected, first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, expected, **TOLERANCE)
        assert torch.equal(second, first)
    assert ran == [2, 3, 4, 2]

    later = build(tiny_models[kind], kind)
    ran = passes(later)
    later.paradigm.attach_feature_cache(FeatureCache(tmp_path))
    expected = cached.paradigm.eval().score(rows)
    assert torch.equal(later.paradigm.eval().score(rows), expected)
    assert not ran


def test_what_is_kept_does_not_depend_on_what_it_was_computed_beside(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    rows = tiny.comparisons()
    found = []
    for number, batches in enumerate(([rows], [rows[2:], rows[:2]], [[row] for row in reversed(rows)])):
        model = build(tiny_models["qwen2_5_vl"], "qwen2_5_vl").paradigm
        model.attach_feature_cache(FeatureCache(tmp_path / str(number)))
        for batch in batches:
            model.score(batch)
        found.append(model.score(rows))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_batch_may_hold_what_is_kept_and_what_is_not(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    rows = tiny.comparisons()
    model = build(tiny_models["qwen2_5_vl"], "qwen2_5_vl").paradigm.eval()
    expected = model.score(rows)
    model.attach_feature_cache(FeatureCache(tmp_path))
    ran: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: ran.append(len(inputs[0].ends)))
    model.score([rows[2], rows[0]])
    torch.testing.assert_close(model.score(rows), expected, **TOLERANCE)
    assert ran == [4, 2, 3, 2]


def test_no_image_is_opened_for_what_is_kept(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    tiny.image().save(image)
    row = Comparison("what is <image>", ["a cat", "a dog"], images=[image], ranks=[0, 1])
    model = build(tiny_models["qwen2_vl"], "qwen2_vl")
    assert model.paradigm.prepare(row).size.patches == 16
    model.paradigm.attach_feature_cache(FeatureCache(tmp_path / "cache"))
    assert model.paradigm.prepare(row).size == (2, 0)
    expected = model.paradigm.score([row])
    image.unlink()
    prepared = model.paradigm.prepare(row)
    assert torch.equal(model.paradigm.score_of([prepared]), expected)
    # The head reads two rows, and the tower none.
    assert prepared.size == (2, 0)


def altered_weight(model: RewardModel) -> None:
    with torch.no_grad():
        next(model.backbone.decoder.decoder.layers[0].parameters())[0] += 0.1


def altered_processor(model: RewardModel) -> None:
    model.backbone.image_processor.image_mean = [0.4, 0.5, 0.5]


def nothing(model: RewardModel) -> None:
    pass


@pytest.mark.parametrize(
    ("options", "head", "alter"),
    [
        ({"max_pixels": 28 * 28 * 4}, {}, nothing),
        ({"min_pixels": 28 * 28 * 2}, {}, nothing),
        ({"max_tokens": 90, "on_long": "truncate"}, {}, nothing),
        ({"dtype": "bfloat16"}, {}, nothing),
        ({"attention": "dense"}, {}, nothing),
        ({}, {"layer": 2}, nothing),
        ({}, {"layer": 3}, nothing),  # the last one, of which the final norm is left out then
        ({}, {}, altered_weight),
        ({}, {}, altered_processor),
    ],
)
def test_what_decides_hidden_states_decides_what_is_found(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    options: dict[str, Any],
    head: dict[str, Any],
    alter: Callable[[RewardModel], None],
) -> None:
    rows = tiny.comparisons()[1:]
    directory = tiny_models["qwen2_5_vl"]
    with FeatureCache(tmp_path) as cache:
        first = build(directory, "qwen2_5_vl")
        first.paradigm.attach_feature_cache(cache)
        first.paradigm.score(rows)
    other, uncached = (build(directory, "qwen2_5_vl", head=head, **options) for _ in range(2))
    ran = passes(other)
    for model in (other, uncached):
        alter(model)
        model.paradigm.eval()
    other.paradigm.attach_feature_cache(FeatureCache(tmp_path))
    torch.testing.assert_close(other.paradigm.score(rows), uncached.paradigm.score(rows), **TOLERANCE)
    assert ran == [3, 4, 2]


def test_weights_that_change_later_are_noticed(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    rows = tiny.comparisons(images=False)
    model = build(tiny_models["llama"], "llama").paradigm.eval()
    model.attach_feature_cache(FeatureCache(tmp_path))
    before = model.score(rows)
    with torch.no_grad():
        next(model.backbone.parameters()).mul_(1.5)
    assert not torch.allclose(model.score(rows), before, atol=1e-3)


def test_an_image_that_changes_is_noticed(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = build(tiny_models["qwen2_vl"], "qwen2_vl").paradigm.eval()
    model.attach_feature_cache(FeatureCache(tmp_path))
    found = []
    for seed in (0, 1):
        row = Comparison("what is it", ["a cat", "a dog"], images=[tiny.image(seed=seed)])
        found.append(model.score([row]))
    assert not torch.equal(*found)


@pytest.mark.parametrize("kept_in_bf16", [True, False])
def test_another_precision_is_another_entry(
    tiny_models: dict[str, Path], tmp_path: Path, kept_in_bf16: bool
) -> None:
    rows = tiny.comparisons(images=False)

    def context(bf16: bool) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()

    found = []
    for bf16 in (kept_in_bf16, not kept_in_bf16):
        model = build(tiny_models["llama"], "llama").paradigm.eval()
        with context(bf16):
            expected = torch.cat([model.score([row]) for row in rows])
        with FeatureCache(tmp_path) as cache:
            model.attach_feature_cache(cache, "torch.bfloat16" if bf16 else "weights")
            with context(bf16):
                torch.testing.assert_close(model.score(rows), expected, **TOLERANCE)
        found.append(expected)
    assert not torch.allclose(*found, atol=1e-4)


def test_what_runs_in_another_precision_than_said_is_not_kept(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    model = build(tiny_models["llama"], "llama").paradigm.eval()
    cache = FeatureCache(tmp_path)
    model.attach_feature_cache(cache, "torch.bfloat16")
    model.score(tiny.comparisons(images=False))
    assert len(cache) == 0


def test_hidden_states_of_what_is_trained_are_not_kept(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    rows = tiny.comparisons(images=False)
    trained = build(tiny_models["llama"], "llama", frozen=False)
    next(trained.backbone.parameters()).requires_grad_(False)
    reads_all = build(tiny_models["llama"], "llama", head={"pooling": "mean"})
    unknown = build(tiny_models["llama"], "llama")
    unknown.backbone.fingerprint = lambda: ""
    for model in (trained, reads_all, unknown):
        cache = FeatureCache(tmp_path)
        model.paradigm.attach_feature_cache(cache)
        ran = passes(model)
        for _ in range(2):
            model.paradigm.loss(rows)
        assert len(cache) == 0
        assert ran == [11, 11]


def test_a_frozen_backbone_stays_in_evaluation(tiny_models: dict[str, Path]) -> None:
    for frozen in (True, False):
        model = build(tiny_models["llama"], "llama", frozen=frozen).paradigm
        assert model.training
        assert model.head.training
        assert model.backbone.training != frozen


def test_what_cannot_be_encoded_is_an_error_each_time(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from basereward.errors import DataError

    model = build(tiny_models["llama"], "llama").paradigm
    model.attach_feature_cache(FeatureCache(tmp_path))
    for _ in range(2):
        with pytest.raises(DataError, match="^images: "):
            model.prepare(tiny.comparisons()[1])


def test_a_forest_of_ends_by_hand() -> None:
    forest = Forest.of_ends(torch.tensor([4, 2, 7, 1, 1]), [2, 3])
    assert forest.ends.tolist() == [0, 1, 2, 3, 4]
    assert forest.tree.tolist() == [[0, 0, 1, 1, 1]]
    assert forest.branch.tolist() == [[1, 2, 1, 2, 3]]
    assert forest.response.tolist() == [[0, 1, 2, 3, 4]]
    assert forest.num_responses == (2, 3)
    assert [(span.start, span.stop) for span in forest.spans] == [(0, 2), (2, 5)]
    # No response sees another.
    assert torch.equal(forest.visible()[0, 0], torch.eye(5, dtype=torch.bool))
