"""A rating is the expected level, by itself, and is learned from ranks or from ratings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD

from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.scoring.reward_model import RewardModel

VALUES = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
LEVELS = ["1", "2", "3", "4", "5"]
EXPLAINED = "unified-reward-score"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_qwen_vl(tmp_path_factory.mktemp("pointwise") / "model"))


def build(directory: Path, **options: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}), paradigm=Component("pointwise", options)
    )
    model.paradigm.eval()
    return model


def row(**more: Any) -> Comparison:
    return Comparison(
        "what is shown in the image?",
        ["a cat sits on the mat", "the dog runs"],
        images=[tiny.image(84, 56, 1)],
        **{"ranks": [0, 1]} | more,
    )


class Fixed(torch.nn.Module):
    """Gives the logits of the levels that it is told, a row for each response, and 0 of all other tokens."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        others = torch.zeros(len(self.logits), 0 if tokens is not None else 10)
        return torch.cat([self.logits, others], dim=1)


def test_the_reward_is_the_expected_level(directory: Path) -> None:
    model = build(directory)
    expected, mass = [], []
    for response in row().responses:
        messages = model.paradigm.template.messages(row().prompt, [response])
        tree = model.backbone.encode(Comparison(messages, LEVELS))
        logits = (
            model.paradigm.head.weight @ model.backbone(model.backbone.pack([tree]))[0, len(tree.prompt) - 1]
        )
        tokens = [ids[0] for ids in tree.responses]
        weights = [math.exp(logits[token].item()) for token in tokens]
        expected.append(sum(value * weight for value, weight in enumerate(weights, 1)) / sum(weights))
        mass.append(logits.softmax(0)[tokens].sum().item())
    assert model.score([row()])[0] == pytest.approx(expected, abs=TINY_REWARD)
    assert model.statistics == {
        "answers": 2,
        "parse_failure_rate": 0.0,
        "answer_mass": pytest.approx(sum(mass) / 2, rel=1e-4),
    }


def test_a_response_is_rated_by_itself(directory: Path) -> None:
    model = build(directory)
    [rewards] = model.score([row()])
    alone = [model.score([row(ranks=None).replace(responses=[text])])[0][0] for text in row().responses]
    assert alone == pytest.approx(rewards, abs=TINY_REWARD)


def test_bradley_terry_of_expected_ratings_has_the_gradient_of_the_formula(directory: Path) -> None:
    paradigm = build(directory).paradigm
    logits = [[0.0, 1.0, 0.5, -1.0, 2.0], [1.0, 0.0, 0.0, 3.0, -2.0]]
    paradigm.head = Fixed(logits)
    output = paradigm.loss([row()])
    output.loss.backward()
    shares = torch.tensor(logits).softmax(1)
    expected = shares @ VALUES
    margin = expected[0] - expected[1]
    assert output.loss.item() == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-6)
    # d loss / d margin = -s(-margin), and d expected / d logit_k = p_k (v_k - expected).
    slope = -torch.sigmoid(-margin) * torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(paradigm.head.logits.grad, slope * shares * (VALUES - expected[:, None]))


def test_cross_entropy_is_that_of_the_levels_beside_the_rating(directory: Path) -> None:
    paradigm = build(directory, objective="cross-entropy").paradigm
    paradigm.head = Fixed([[0.0, 1.0, 0.5, -1.0, 2.0], [1.0, 0.0, 0.0, 3.0, -2.0]])
    output = paradigm.loss([row(ranks=None, ratings=[4.25, 1])])
    costs = -paradigm.head.logits.log_softmax(1)
    # 4.25 is three quarters of 4 and a quarter of 5; 1 is the lowest level.
    first, second = 0.75 * costs[0, 3] + 0.25 * costs[0, 4], costs[1, 0]
    assert output.loss.item() == pytest.approx(((first + second) / 2).item(), rel=1e-6)
    assert output.weight.item() == 2


def test_the_ordinal_loss_is_the_ranked_probability_score(directory: Path) -> None:
    paradigm = build(directory, objective="ordinal").paradigm
    near, far = [-20.0, -20, -20, 20, -20], [20.0, -20, -20, -20, -20]
    paradigm.head = Fixed([near, far])
    output = paradigm.loss([row(ranks=None, ratings=[5, 5])])
    # All on 4 is one level off 5, all on 1 four; the squared differences of the cumulated shares are 1.
    assert output.loss.item() == pytest.approx((1 + 4) / 2, rel=1e-6)


def test_ties_and_single_responses_with_ratings_are_learned(directory: Path) -> None:
    paradigm = build(directory, objective="cross-entropy").paradigm
    single = row(ranks=None).replace(responses=["a cat sits"], ratings=[3.0], weight=2.0)
    tied = row(ranks=None, ratings=[3, 3])
    parts = [paradigm.loss([each]) for each in (single, tied)]
    both = paradigm.loss([single, tied])
    assert [part.weight.item() for part in (*parts, both)] == [2, 2, 4]
    added = sum((part.loss * part.weight).item() for part in parts)
    assert (both.loss * both.weight).item() == pytest.approx(added, rel=TINY_REWARD)


@pytest.mark.parametrize("objective", ["reward-loss", "cross-entropy", "ordinal"])
def test_it_learns_and_is_saved(directory: Path, tmp_path: Path, objective: str) -> None:
    model = build(directory, objective=objective)
    rows = [row(ranks=None, ratings=[2, 4])]
    paradigm = model.paradigm.train()
    with torch.no_grad():
        paradigm.head.weight.mul_(0.1)  # levels that are nearly sure have next to no gradient
    optimizer = torch.optim.Adam(paradigm.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        paradigm.loss(rows).loss.backward()
        optimizer.step()
    paradigm.eval()
    [rewards] = model.score(rows)
    assert rewards[1] - rewards[0] > 1
    if objective != "reward-loss":
        assert rewards == pytest.approx([2, 4], abs=0.5)
    model.save(tmp_path / "saved")
    assert RewardModel.load(tmp_path / "saved").score(rows) == [rewards]


def with_texts(first: str | None, second: str | None, **more: Any) -> Comparison:
    return row(meta={"critiques": [first, second]}, **more)


def test_an_explained_rating_stands_behind_its_lead(directory: Path) -> None:
    model = build(directory, template=EXPLAINED)
    # The number that was written is not read: what counts is what could stand there.
    [rewards] = model.score([with_texts("the cat is there.\nFinal Score: 5", "no cat")])
    beginnings = ["the cat is there.\nFinal Score: ", "no cat\nFinal Score: "]
    for beginning, response, reward in zip(beginnings, row().responses, rewards, strict=True):
        messages = model.paradigm.template.messages(row().prompt, [response])
        tree = model.backbone.encode(Comparison(messages, [f"{beginning}{level}" for level in range(1, 6)]))
        place = next(
            n for n, tokens in enumerate(zip(*tree.responses, strict=False)) if len(set(tokens)) == 5
        )
        branch = [*tree.prompt, *tree.responses[0][:place]]
        whole = model.backbone.encode(Comparison(messages, [f"{beginning}1"]))
        assert [*whole.prompt, *whole.responses[0]][: len(branch)] == branch
        hidden = model.backbone(model.backbone.pack([whole]))[0, len(branch) - 1]
        logits = (model.paradigm.head.weight @ hidden)[[ids[place] for ids in tree.responses]]
        assert reward == pytest.approx((logits.softmax(0) @ VALUES).item(), abs=TINY_REWARD)
    assert model.statistics["parse_failure_rate"] == 0


def test_it_learns_to_explain_and_rates_what_it_wrote(directory: Path) -> None:
    model = build(directory, template=EXPLAINED, objective="cross-entropy", max_critique_tokens=40)
    paradigm = model.paradigm.train()
    optimizer = torch.optim.Adam(paradigm.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        paradigm.loss([with_texts("it is right", "a dog", ranks=None, ratings=[5, 1])]).loss.backward()
        optimizer.step()
    paradigm.eval()
    assert paradigm.critiques(row()) == ["it is right\nFinal Score: 5", "a dog\nFinal Score: 1"]
    [rewards] = model.score([row()])
    assert rewards == pytest.approx([5, 1], abs=0.2)
    given = with_texts("it is right\nFinal Score: 5", "a dog\nFinal Score: 1")
    assert model.score([given]) == [rewards]


def test_a_text_without_a_rating_is_counted_and_its_comparison_has_no_rewards(directory: Path) -> None:
    model = build(directory, template=EXPLAINED, max_critique_tokens=3)
    [(_, found)] = model.score_stream([row()])
    assert isinstance(found, DataError)
    assert str(found) == "responses: no rating could be read in what the judge wrote on a response"
    assert model.statistics["answers"] == 2
    assert model.statistics["parse_failure_rate"] == 1.0
    assert "answer_mass" not in model.statistics


def test_a_number_is_the_reward(directory: Path) -> None:
    model = build(directory, template="unified-reward-score-100")
    texts = ("Well seen.\nFinal Score: 87.5", "Final Score: 12\nNo: Final Score: **40**")
    assert model.score([with_texts(*texts)]) == [[87.5, 40.0]]
    with pytest.raises(DataError, match="no rating could be read"):
        model.score([with_texts("Final Score: 101", texts[1])])
    with pytest.raises(ConfigError) as error:
        model.paradigm.train().prepare(row())
    assert str(error.value) == (
        "judge template 'unified-reward-score-100' asks for a number, which has no levels to learn; "
        "train with one of levels"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "ratings: has no ratings, and the objective ordinal learns from nothing else"),
        (
            {"ranks": None, "ratings": [3, 7]},
            "ratings: ratings are 1 to 5, the values of the template's levels, not 7",
        ),
    ],
)
def test_rows_that_teach_nothing_are_refused(directory: Path, given: dict[str, Any], message: str) -> None:
    paradigm = build(directory, objective="ordinal").paradigm.train()
    with pytest.raises(DataError) as error:
        paradigm.prepare(row(**given))
    assert str(error.value) == message
    paradigm.eval().prepare(row(**given))


def test_a_template_of_another_answer_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigError) as error:
        build(directory, template="verdict")
    assert str(error.value) == (
        "judge template 'verdict' asks for a verdict; pointwise needs one that asks for a rating"
    )
