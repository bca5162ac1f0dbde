"""Sharing is exact: a response's reward and gradients don't depend on what it was computed beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, TINY_REWARD, within
from tiny import INTERNVL_KINDS, LM_KINDS, VL_KINDS

from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import Grid, QwenVL, mrope_positions
from basereward.comparison import Comparison
from basereward.forest import Forest
from basereward.heads import MLP

TOLERANCE = within(TINY_GRADIENT)


def build(directory: Path, kind: str, **options: str) -> Backbone:
    """Build a tiny backbone."""
    kinds = {**dict.fromkeys(VL_KINDS, QwenVL), **dict.fromkeys(INTERNVL_KINDS, InternVL)}
    return kinds.get(kind, CausalLM)(model=str(directory), **options)


def rows(kind: str) -> list[Comparison]:
    """Return comparisons that the kind of backbone reads."""
    return tiny.comparisons(images=kind in (*VL_KINDS, *INTERNVL_KINDS))


def rewards_and_gradients(
    backbone: Backbone, head: MLP, forest: Forest
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the rewards [N] and the gradient of a sum that weighs them unequally."""
    backbone.zero_grad()
    rewards = head(backbone(forest), forest)
    (rewards * torch.linspace(-1, 1, len(rewards))).sum().backward()
    gradients = {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
    return rewards.detach(), gradients


@pytest.fixture(params=[*VL_KINDS, *INTERNVL_KINDS, *LM_KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Return each architecture's name in turn."""
    return request.param


@pytest.fixture
def head() -> MLP:
    """Return a head whose rewards are far enough apart to tell."""
    torch.manual_seed(1)
    return MLP(32)


@pytest.mark.usefixtures("each_way_of_attending")
def test_rewards_and_gradients_equal_one_row_a_response(
    tiny_models: dict[str, Path], kind: str, head: MLP
) -> None:
    reference = build(tiny_models[kind], kind)
    reference.decoder.use("plain")
    rewards, gradients = rewards_and_gradients(reference, head, reference.forest(rows(kind), shared=False))
    assert rewards.std() > 0.01
    for mode in ("forest", "dense"):
        backbone = build(tiny_models[kind], kind, attention=mode)
        trees = [backbone.encode(comparison) for comparison in rows(kind)]
        for row_tokens in (None, 400):
            forest = backbone.pack(trees, row_tokens=row_tokens)
            shared_rewards, shared_gradients = rewards_and_gradients(backbone, head, forest)
            torch.testing.assert_close(shared_rewards, rewards, **TOLERANCE)
            assert shared_gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(shared_gradients[name], gradient, **TOLERANCE, msg=name)


def test_a_reward_depends_on_no_neighbour_and_no_order(
    tiny_models: dict[str, Path], kind: str, head: MLP
) -> None:
    backbone = build(tiny_models[kind], kind)
    comparisons = rows(kind)
    with torch.no_grad():
        together = head(backbone(forest := backbone.forest(comparisons)), forest).split(
            list(forest.num_responses)
        )
        for order in ([3, 1, 0, 2], [2], [1, 1]):
            forest = backbone.forest([comparisons[number] for number in order])
            found = head(backbone(forest), forest).split(list(forest.num_responses))
            for number, rewards in zip(order, found, strict=True):
                torch.testing.assert_close(rewards, together[number], **TOLERANCE)


def test_a_reward_depends_on_its_own_response_alone(
    tiny_models: dict[str, Path], kind: str, head: MLP
) -> None:
    backbone = build(tiny_models[kind], kind)
    row = rows(kind)[1]
    first = Comparison(row.prompt, [row.responses[0], "a dog"])
    second = Comparison(row.prompt, [row.responses[0], "the blue house runs on and on under a mat"])
    with torch.no_grad():
        found = [float(head(backbone(f := backbone.forest([one])), f)[0]) for one in (first, second)]
    assert found[0] == pytest.approx(found[1], abs=TINY_REWARD)


@pytest.mark.parametrize("kind", VL_KINDS)
def test_positions_are_those_of_transformers(tiny_models: dict[str, Path], kind: str) -> None:
    backbone = build(tiny_models[kind], kind)
    forest = backbone.forest(rows(kind), shared=False)
    config = backbone.model.config
    expected, _ = backbone.model.get_rope_index(
        forest.input_ids,
        mm_token_type_ids=(forest.input_ids == config.image_token_id).long(),
        image_grid_thw=forest.media["image_grid_thw"],
        attention_mask=(forest.branch >= 0).long(),
    )
    real = forest.branch >= 0
    assert torch.equal(forest.positions[:, real], expected[:, real])


@pytest.mark.parametrize("kind", VL_KINDS)
def test_hidden_states_are_those_of_transformers(tiny_models: dict[str, Path], kind: str) -> None:
    # The model called as its own documentation does: a padded batch, token types, no positions.
    backbone = build(tiny_models[kind], kind)
    forest = backbone.forest(rows(kind), shared=False)
    with torch.no_grad():
        ours = backbone(forest)
        backbone.model.set_attn_implementation("eager")
        theirs = backbone.model(
            input_ids=forest.input_ids,
            attention_mask=(forest.branch >= 0).long(),
            mm_token_type_ids=(forest.input_ids == backbone.model.config.image_token_id).long(),
            pixel_values=forest.media["pixel_values"],
            image_grid_thw=forest.media["image_grid_thw"],
        ).last_hidden_state
    torch.testing.assert_close(
        ours.flatten(0, 1)[forest.ends], theirs.flatten(0, 1)[forest.ends], **TOLERANCE
    )


def test_mrope_by_hand() -> None:
    # Text 5, an image (7) of 1 x 2 x 3, text 5 5. The image begins at 1; what follows it at 1 + max(2, 3) =
    # 4.
    positions, start = mrope_positions([5, 7, 7, 7, 7, 7, 7, 5, 5], {7: [(Grid(1, 2, 3), 1.0)]})
    assert positions.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 1, 1, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]
    assert start == 6


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llama"])
def test_bf16_stays_near_fp32(tiny_models: dict[str, Path], kind: str, head: MLP) -> None:
    backbone = build(tiny_models[kind], kind)
    forest = backbone.forest(rows(kind))
    with torch.no_grad():
        exact = head(backbone(forest), forest)
        with torch.autocast("cpu", torch.bfloat16):
            rough = head(backbone(forest), forest)
    assert rough.dtype == torch.float32
    # Eight bits of mantissa through three layers: about 3 * 2 ** -8 of the states' scale, which is 1 after
    # the norm.
    assert float((rough - exact).abs().max()) < 0.02


def test_a_model_with_a_sliding_window_falls_back_to_one_row_a_response(tmp_path: Path, head: MLP) -> None:
    from transformers import MistralConfig, MistralModel

    torch.manual_seed(0)
    MistralModel(MistralConfig(**tiny.text_config(sliding_window=8))).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    backbone = CausalLM(model=str(tmp_path))
    assert not backbone.shares
    comparisons = rows("mistral")
    forest = backbone.forest(comparisons)
    assert forest.input_ids.shape[0] == sum(forest.num_responses)
    with torch.no_grad():
        together = head(backbone(forest), forest)
        alone = [
            head(backbone(single := backbone.forest([Comparison(row.prompt, [response])])), single)
            for row in comparisons
            for response in row.responses
        ]
    torch.testing.assert_close(together, torch.cat(alone), **TOLERANCE)
