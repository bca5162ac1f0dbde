"""A rubric's reward is the weighted share of yes, of the template's items or of the row's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD

from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.paradigms.rubric import written_rubric
from basereward.scoring.reward_model import RewardModel

RUBRIC = [{"ask": "is it a cat?", "weight": 3}, "is it red?", {"ask": "is it a dog?", "weight": -2}]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_causal_lm(tmp_path_factory.mktemp("rubric") / "model"))


def build(directory: Path, **options: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(directory)}),
        paradigm=Component("pointwise", {"template": "rubric", **options}),
    )
    model.paradigm.eval()
    return model


def row(**meta: Any) -> Comparison:
    return Comparison("what is shown?", ["a cat sits", "the dog runs"], ranks=[0, 1], meta=meta)


def test_the_reward_is_the_weighted_share_of_yes(directory: Path) -> None:
    model = build(directory)
    expected = []
    for response in row().responses:
        total = 0.0
        for ask, weight in (("is it a cat?", 3), ("is it red?", 1), ("is it a dog?", -2)):
            messages = model.paradigm.template.messages(row().prompt, [response], ask)
            tree = model.backbone.encode(Comparison(messages, ["Yes", "No"]))
            hidden = model.backbone(model.backbone.pack([tree]))[0, len(tree.prompt) - 1]
            logits = (model.paradigm.head.weight @ hidden)[[ids[0] for ids in tree.responses]]
            total += weight * logits.softmax(0)[0].item()
        expected.append(total / (3 + 1))
    assert model.score([row(rubric=RUBRIC)])[0] == pytest.approx(expected, abs=TINY_REWARD)
    assert model.statistics["answers"] == 2 * 3


def test_rows_have_items_of_their_own_or_the_template_s(directory: Path) -> None:
    model = build(directory)
    own, ours = model.score([row(rubric=RUBRIC), row()])
    assert [own] == model.score([row(rubric=RUBRIC)])
    assert ours == pytest.approx(model.score([row()])[0], abs=TINY_REWARD)
    items = [item._asdict() for item in model.paradigm.template.items]
    assert model.score([row(rubric=items)])[0] == pytest.approx(ours, abs=TINY_REWARD)


def test_it_learns_from_ranks_and_is_saved(directory: Path, tmp_path: Path) -> None:
    model = build(directory)
    paradigm = model.paradigm.train()
    with torch.no_grad():
        paradigm.head.weight.mul_(0.1)  # answers that are nearly sure have next to no gradient
    rows = [row(rubric=RUBRIC), row()]
    before = paradigm.loss(rows).loss.item()
    optimizer = torch.optim.Adam(paradigm.parameters(), 3e-4)
    for _ in range(15):
        optimizer.zero_grad()
        paradigm.loss(rows).loss.backward()
        optimizer.step()
    assert paradigm.loss(rows).loss.item() < before
    paradigm.eval()
    rewards = model.score(rows)
    model.save(tmp_path / "saved")
    assert RewardModel.load(tmp_path / "saved").score(rows) == rewards


@pytest.mark.parametrize(
    "rubric",
    [
        "is it?",
        [],
        [{"ask": "", "weight": 1}],
        [{"ask": "is it?", "weight": 0}],
        [{"ask": "x", "weight": -1}],
    ],
)
def test_a_wrong_rubric_is_an_error_of_the_row(directory: Path, rubric: Any) -> None:
    with pytest.raises(DataError) as error:
        build(directory).paradigm.prepare(row(rubric=rubric))
    assert str(error.value) == (
        'meta.rubric: a rubric is a list of {"ask": "Is it true?", "weight": 2}, with a weight above 0 among '
        f"them, not {rubric!r}"
    )


def test_levels_are_not_learned_by_a_rubric(directory: Path) -> None:
    with pytest.raises(ConfigError) as error:
        build(directory, objective="ordinal")
    assert str(error.value) == (
        "objective 'ordinal' learns from ratings on the levels of one answer; a rubric learns by "
        '"reward-loss"'
    )


def test_a_rubric_is_read_line_by_line() -> None:
    text = "Here it is:\n- [3] Is it a cat?\n2. [ -1.5 ] Is it a dog?\n* [0] Nothing?\n- Is it red?\n"
    assert written_rubric(text) == [
        {"ask": "Is it a cat?", "weight": 3.0},
        {"ask": "Is it a dog?", "weight": -1.5},
    ]
    assert written_rubric("I can't.") is None
    assert written_rubric("- [-1] Is it a dog?") is None
