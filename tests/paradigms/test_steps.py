"""Step rewards: one pass over a solution gives what each of its beginnings would get alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, within

from basereward import Comparison, ConfigError, RewardModel
from basereward.backbones.feature_cache import FeatureCache
from basereward.config import Component

STEPS = ("First, the cat is red.\n", "So it is warm.\n", "Then it sleeps.\n", "The answer is 4.")

TOLERANCE = within(TINY_GRADIENT)


def require_close(rewards: Sequence[float], expected: Sequence[float]) -> None:
    torch.testing.assert_close(torch.tensor(rewards), torch.tensor(expected), **TOLERANCE)


def solution(num: int = len(STEPS), *, first: int = 0) -> list[str]:
    """Return the beginnings of a solution up to the end of each step."""
    return ["".join(STEPS[first : at + 1]) for at in range(first, num)]


def model(directory: Path | None = None, *, head: dict[str, object] | None = None) -> RewardModel:
    torch.manual_seed(0)
    backbone = (
        Component("tiny", {}) if directory is None else Component("causal-lm", {"model": str(directory)})
    )
    built = RewardModel.build(
        backbone=backbone,
        head=Component("mlp", head or {}),
        loss=Component("binary-cross-entropy", {}),
        paradigm=Component("steps", {}),
    )
    built.paradigm.eval()
    return built


def encoded(built: RewardModel, responses: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Return the lengths of the branches, and the places that are read."""
    tree = built.paradigm.encode(Comparison("q", responses))
    return [len(ids) for ids in tree.responses], [list(reads) for reads in tree.reads]


def test_the_steps_of_a_solution_are_one_branch() -> None:
    built = model()
    lengths = [len(text) for text in solution()]  # the tiny backbone reads bytes
    assert encoded(built, solution()) == ([lengths[-1]], [[length - 1 for length in lengths]])
    # Two solutions, one after the other; a text that continues nothing is a branch of its own.
    both = [*solution(2), *solution(3, first=1), "x"]
    assert [len(reads) for reads in encoded(built, both)[1]] == [2, 2, 1]


def test_a_step_has_the_reward_of_its_solution_so_far_alone(tiny_models: dict[str, Path]) -> None:
    for built in (model(), model(tiny_models["llama"])):
        rows = [Comparison("How warm is it?", solution()), Comparison("q", ["x", *solution(2)])]
        together = built.score(rows)
        for row, rewards in zip(rows, together, strict=True):
            alone = [built.score([Comparison(row.prompt, [text])])[0][0] for text in row.responses]
            require_close(rewards, alone)
            assert len(set(rewards)) == len(rewards)


def test_what_comes_after_a_step_does_not_change_its_reward() -> None:
    built = model()
    changed = [*solution(2), solution(2)[-1] + "Then it barks.\n"]
    [first, second] = built.score([Comparison("q", solution(3)), Comparison("q", changed)])
    require_close(first[:2], second[:2])
    assert first[2] != pytest.approx(second[2], abs=1e-3)


def test_a_solution_costs_one_pass_over_its_tokens() -> None:
    built = model()
    prepared = built.paradigm.prepare(Comparison("q", solution()))
    alone = built.paradigm.prepare(Comparison("q", solution()[-1:]))
    assert prepared.size == alone.size
    shapes: list[tuple[int, ...]] = []
    built.backbone.register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].input_ids.shape))
    )
    built.paradigm.score_of([prepared])
    built.paradigm.score_of([alone])
    assert shapes[0] == shapes[1]


def test_unshared_prompts_and_joined_comparisons_give_the_same_rewards() -> None:
    built = model()
    rows = [Comparison("q", solution(3)), Comparison("q", ["x", *solution(2)])]
    expected = [reward for rewards in built.score(rows) for reward in rewards]
    joined = built.join([built.paradigm.prepare(row) for row in rows])
    require_close(built.paradigm.score_of([joined]).tolist(), expected)
    built.paradigm.share_prompts = False
    apart = [reward for rewards in built.score(rows) for reward in rewards]
    require_close(apart, expected)


def test_cached_states_are_those_of_the_steps(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    row = Comparison("q", solution(), ratings=[1, 1, 0, 1])
    built = model(tiny_models["llama"])
    built.backbone.requires_grad_(False)
    expected = built.paradigm.loss([row]).loss
    rewards = built.score([row])
    cache = FeatureCache(tmp_path / "cache")
    built.paradigm.attach_feature_cache(cache)
    passes: list[None] = []
    built.backbone.register_forward_pre_hook(lambda *_: passes.append(None))
    for _ in range(2):
        require_close([built.paradigm.loss([row]).loss.item()], [expected.item()])
        require_close(built.score([row])[0], rewards[0])
    assert len(passes) == 1  # of the first loss; all others read what it has kept
    # A scalar model on the same backbone reads other tokens of the same responses, and finds none of these.
    scalar = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tiny_models["llama"])}), head=Component("mlp", {})
    )
    scalar.backbone.requires_grad_(False)
    before = scalar.score([row])
    scalar.paradigm.attach_feature_cache(cache)
    require_close(scalar.score([row])[0], before[0])


def test_the_loss_is_the_mean_cross_entropy_of_the_steps() -> None:
    built = model()
    row = Comparison("q", solution(), ratings=[1, 0, 1, 1])
    [rewards] = built.score([row])
    odds = torch.tensor(rewards, dtype=torch.float64)
    right = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    expected = torch.nn.functional.binary_cross_entropy(odds.sigmoid(), right)
    output = built.paradigm.loss([row])
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert output.weight.item() == 4


def test_a_few_steps_of_training_tell_right_steps_from_wrong_ones() -> None:
    torch.manual_seed(0)
    built = model()
    rows = [
        Comparison(f"q{number}", ["yes.\n", f"yes.\nno {number}.\n"], ratings=[1, 0]) for number in range(4)
    ]
    optimizer = torch.optim.AdamW(built.paradigm.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        built.paradigm.loss(rows).loss.backward()
        optimizer.step()
    assert all(right > 0 > wrong for right, wrong in built.score(rows))


def test_a_saved_model_reads_steps_again(tmp_path: Path) -> None:
    built = model()
    row = Comparison("q", solution())
    built.save(tmp_path / "model")
    assert RewardModel.load(tmp_path / "model", device="cpu").score([row]) == built.score([row])


def test_heads_that_read_more_than_a_token_are_refused() -> None:
    with pytest.raises(ConfigError, match='the paradigm "steps" reads single tokens; leave out the head'):
        model(head={"pooling": "mean"})


def test_an_image_is_read_once_for_all_steps(tiny_models: dict[str, Path]) -> None:
    torch.manual_seed(0)
    built = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])}),
        loss=Component("binary-cross-entropy", {}),
        paradigm=Component("steps", {}),
    )
    built.paradigm.eval()
    image = tiny.image(56, 56, seed=0)
    row = Comparison("<image>How warm is it?", solution(), images=[image])
    [rewards] = built.score([row])
    alone = [built.score([Comparison(row.prompt, [text])])[0][0] for text in row.responses]
    require_close(rewards, alone)
    tree = built.paradigm.encode(row)
    assert len(tree.responses) == 1
