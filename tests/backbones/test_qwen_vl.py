"""Images of Qwen's models among processes: all take part in what one of them does."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from basereward.backbones.qwen_vl import QwenVL
from basereward.comparison import Comparison
from basereward.media import Image, Video

TEXTS = [Comparison("what is it", ["a cat", "a red dog"]), Comparison("and this", ["a hat", "blue"])]


@pytest.fixture(params=tiny.VL_KINDS)
def backbone(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> QwenVL:
    """Return a tiny model of each kind."""
    return QwenVL(model=str(tiny_models[request.param]), min_pixels=28 * 28, max_pixels=28 * 28 * 16)


def order_of_calls(backbone: QwenVL, comparisons: list[Comparison]) -> list[str]:
    """Return which blocks run forward and then backward, in order."""
    calls: list[str] = []
    names = {id(module): name for name, module in backbone.named_modules()}
    handles = []
    for block in backbone.blocks():
        name = names[id(block)]
        handles.append(block.register_forward_hook(lambda *_, name=name: calls.append(f"{name} forward")))
        handles.append(
            block.register_full_backward_hook(lambda *_, name=name: calls.append(f"{name} backward"))
        )
    backbone(backbone.forest(comparisons)).sum().backward()
    for handle in handles:
        handle.remove()
    return calls


def test_an_image_of_nothing_changes_nothing_and_gives_gradients_of_zero(backbone: QwenVL) -> None:
    forest = backbone.forest(TEXTS)
    expected = backbone(forest)
    expected.sum().backward()
    alone = {name: value.grad.clone() for name, value in backbone.model.language_model.named_parameters()}
    assert all(parameter.grad is None for parameter in backbone.model.visual.parameters())

    backbone.zero_grad()
    backbone.always_runs_vision = True
    found = backbone(forest)
    found.sum().backward()
    assert torch.equal(found, expected)
    for name, value in backbone.model.language_model.named_parameters():
        assert torch.equal(value.grad, alone[name]), name
    for name, value in backbone.model.visual.named_parameters():
        assert value.grad is not None, name
        assert not value.grad.any(), name


def test_batches_with_and_without_images_run_the_same_blocks_in_the_same_order(backbone: QwenVL) -> None:
    image = Image(tiny.image())
    contents = [[image, "what is it"], [image, "and", Image(tiny.image(84, 56, seed=2)), "alike"]]
    if not backbone.model.config.model_type.startswith("qwen3_vl"):
        video = Video([tiny.image(seed=number) for number in range(3)])
        contents += [[video, "what is it"], [video, "and", image, "alike"]]
    backbone.always_runs_vision = True
    wanted = order_of_calls(backbone, TEXTS)
    for content in contents:
        row = Comparison([{"role": "user", "content": content}], ["a cat", "a red dog"])
        assert order_of_calls(backbone, [row, TEXTS[0]]) == wanted
