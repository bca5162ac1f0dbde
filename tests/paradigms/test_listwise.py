"""All responses are shown at once, in rotated orders, and the order is averaged away."""

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
from basereward.errors import DataError
from basereward.paradigms.listwise import rotations
from basereward.scoring.reward_model import RewardModel

RESPONSES = ["a cat sits on the mat", "the dog runs", "a red house", "it is blue"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_qwen_vl(tmp_path_factory.mktemp("listwise") / "model"))


def build(directory: Path, loss: str = "bradley-terry", **options: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}),
        loss=Component(loss, {}),
        paradigm=Component("listwise", options),
    )
    model.paradigm.eval()
    return model


def row(num: int = 3, **more: Any) -> Comparison:
    return Comparison(
        "what is shown in the image?",
        RESPONSES[:num],
        images=[tiny.image(84, 56, 1)],
        ranks=list(range(num)),
        **more,
    )


class Fixed(torch.nn.Module):
    """Gives the logits of A, B, C that it is told, a row for each order, and 0 of all other tokens."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        num = 30 if tokens is None else len(tokens)
        return torch.cat([self.logits, torch.zeros(len(self.logits), num)], dim=1)[:, :num]


def test_the_orders_are_rotations() -> None:
    assert rotations(3, None) == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert rotations(4, 2) == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert rotations(2, 9) == [[0, 1], [1, 0]]


def test_the_reward_is_the_mean_log_probability_over_the_orders(directory: Path) -> None:
    model = build(directory)
    expected = [0.0] * 3
    for order in rotations(3, None):
        messages = model.paradigm.template.messages(row().prompt, [RESPONSES[number] for number in order])
        tree = model.backbone.encode(Comparison(messages, ["A", "B", "C"]))
        hidden = model.backbone(model.backbone.pack([tree]))[0, len(tree.prompt) - 1]
        logits = (model.paradigm.head.weight @ hidden)[[ids[0] for ids in tree.responses]]
        for place, number in enumerate(order):
            expected[number] += logits.log_softmax(0)[place].item() / 3
    assert model.score([row()])[0] == pytest.approx(expected, abs=TINY_REWARD)


def test_what_follows_of_each_order_and_what_is_counted(directory: Path) -> None:
    model = build(directory)
    # Orders 0 1 2, 1 2 0, 2 0 1; the favourites are 0, 1 (shown first both times), and 0 again.
    model.paradigm.head = Fixed([[2.0, 0, 0], [3.0, 0, 0], [0.0, 1, 0]])
    [rewards] = model.score([row()])
    chosen = [math.exp(top) / (math.exp(top) + 2) for top in (2, 3, 1)]
    other = [1 / (math.exp(top) + 2) for top in (2, 3, 1)]
    of_first = math.log(chosen[0]) + math.log(other[1]) + math.log(chosen[2])
    of_second = math.log(other[0]) + math.log(chosen[1]) + math.log(other[2])
    assert rewards == pytest.approx([of_first / 3, of_second / 3, sum(map(math.log, other)) / 3], rel=1e-5)
    # Of 30 tokens, 27 have the logit 0 and are no letter.
    masses = [(math.exp(top) + 2) / (math.exp(top) + 2 + 27) for top in (2, 3, 1)]
    assert model.statistics == {
        "answers": 3,
        "parse_failure_rate": 0.0,
        "answer_mass": pytest.approx(sum(masses) / 3, rel=1e-5),
        "position_consistency": 1 / 3,
        "first_preferred": 2 / 3,
    }


def test_of_two_it_is_the_verdict_in_both_orders(directory: Path) -> None:
    model = build(directory)
    model.paradigm.head = Fixed([[2.0, 0], [1.0, 0]])
    [rewards] = model.score([row(2)])
    assert rewards[0] - rewards[1] == pytest.approx((2 - 1) / 2, rel=1e-5)
    assert model.statistics["position_consistency"] == 0


def test_turned_round_responses_have_turned_round_rewards(directory: Path) -> None:
    model = build(directory)
    [rewards] = model.score([row(4)])
    turned = Comparison(row(4).prompt, [*RESPONSES[2:], *RESPONSES[:2]])
    assert model.score([turned])[0] == pytest.approx([*rewards[2:], *rewards[:2]], abs=TINY_REWARD)


def test_plackett_luce_is_the_softmax_over_the_ranking_of_each_order(directory: Path) -> None:
    paradigm = build(directory, loss="plackett-luce").paradigm
    logits = [[2.0, 0, 0], [3.0, 0, 0], [0.0, 1, 0]]
    paradigm.head = Fixed(logits)
    output = paradigm.loss([row()])
    costs = 0.0
    for order, shown in zip(rotations(3, None), torch.tensor(logits), strict=True):
        by_response = torch.zeros(3).scatter(0, torch.tensor(order), shown)
        # The best of three, then the better of the other two.
        costs += -by_response.log_softmax(0)[0].item() - by_response[1:].log_softmax(0)[0].item()
    assert output.loss.item() == pytest.approx(costs / 3, rel=1e-5)
    assert output.weight.item() == 1


def test_it_learns_and_is_saved(directory: Path, tmp_path: Path) -> None:
    model = build(directory, max_rotations=2)
    paradigm = model.paradigm.train()
    optimizer = torch.optim.Adam(paradigm.parameters(), 5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        output = paradigm.loss([row()])
        output.loss.backward()
        optimizer.step()
    assert output.sums[:2].tolist() == [3, 3]
    paradigm.eval()
    [rewards] = model.score([row()])
    assert rewards == sorted(rewards, reverse=True)
    model.save(tmp_path / "saved")
    assert RewardModel.load(tmp_path / "saved").score([row()]) == [rewards]


@pytest.mark.parametrize("num", [1, 27])
def test_there_are_as_many_responses_as_letters_at_most(directory: Path, num: int) -> None:
    with pytest.raises(DataError) as error:
        build(directory).paradigm.prepare(Comparison("q", [f"answer {n}" for n in range(num)]))
    assert str(error.value) == f"responses: a listwise judge compares 2 to 26 responses, not {num}"
