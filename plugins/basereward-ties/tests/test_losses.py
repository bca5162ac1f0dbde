"""The losses are the models in print, go over into Bradley-Terry, and learn from ties."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from basereward_ties.losses import Davidson, RaoKupper, TieLoss
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.losses import BradleyTerry, Targets

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

MARGINS = st.floats(-30, 30)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(MARGINS, st.floats(0.01, 20))
def test_davidson_is_his_formula(margin: float, nu: float) -> None:
    first, second = math.exp(margin / 2), math.exp(-margin / 2)
    whole = first + second + nu * math.sqrt(first * second)
    found = Davidson(nu=nu).outcomes(torch.tensor(margin, dtype=torch.float64))
    expected = [first / whole, nu * math.sqrt(first * second) / whole, second / whole]
    assert [float(share) for share in found] == pytest.approx(expected, rel=1e-5, abs=1e-12)


@given(MARGINS, st.floats(0.01, 5))
def test_rao_and_kupper_is_their_formula(margin: float, threshold: float) -> None:
    win, loss = sigmoid(margin - threshold), sigmoid(-margin - threshold)
    found = RaoKupper(threshold=threshold).outcomes(torch.tensor(margin, dtype=torch.float64))
    assert [float(share) for share in found] == pytest.approx([win, 1 - win - loss, loss], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    "loss", [Davidson(nu=1e-7), RaoKupper(threshold=1e-7)], ids=["davidson", "rao-kupper"]
)
def test_without_room_for_ties_it_is_bradley_terry(loss: TieLoss) -> None:
    targets = Targets.of([Comparison("p", ["a", "b", "c"], ranks=[0, 1, 2], weight=2.0)])
    rewards = torch.tensor([0.3, -1.0, 2.0])
    found, wanted = loss(rewards, targets), BradleyTerry()(rewards, targets)
    torch.testing.assert_close(found.loss, wanted.loss)
    torch.testing.assert_close(found.sums, wanted.sums)


def test_equal_responses_tie_as_often_as_the_docstrings_say() -> None:
    nothing = torch.zeros(())
    assert Davidson(nu=2.0).outcomes(nothing).tie.item() == pytest.approx(2 / (2 + 2))
    assert RaoKupper(threshold=1.0).outcomes(nothing).tie.item() == pytest.approx(math.tanh(0.5))


@pytest.mark.parametrize("cls", [Davidson, RaoKupper])
def test_a_learnt_parameter_finds_the_share_of_ties(cls: type[TieLoss]) -> None:
    # Three of four pairs of equal responses are ties; nothing but the parameter can be learnt of them.
    rows = [Comparison("p", ["a", "b"], ranks=[0, 0])] * 3 + [Comparison("p", ["a", "b"], ranks=[0, 1])]
    targets, rewards = Targets.of(rows), torch.zeros(8)
    loss = cls()
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss(rewards, targets).loss.backward()
        optimizer.step()
    assert loss.outcomes(torch.zeros(())).tie.item() == pytest.approx(3 / 4, abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Davidson(nu=0), "nu is a finite number > 0, not 0"),
        (lambda: RaoKupper(threshold=-1), "threshold is a finite number > 0, not -1"),
    ],
)
def test_what_cant_be_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build()


ROWS = [
    *(Comparison(f"say {n}", [f"{n} yes", f"{n} no"], ranks=[0, 1]) for n in range(8)),
    # As good as "yes", though it looks like "no", which is all that plain Bradley-Terry has to go by.
    *(Comparison(f"say {n}", [f"{n} yes", f"{n} now"], ranks=[0, 0]) for n in range(8)),
]


def trained(loss: Component) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(backbone=Component("tiny", {}), loss=loss)
    optimizer = torch.optim.Adam(model.paradigm.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.paradigm.loss(ROWS).loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", ["davidson", "rao-kupper"])
def test_a_training_pulls_ties_together_which_bradley_terry_leaves_apart(name: str, tmp_path: Path) -> None:
    def gaps(model: RewardModel) -> tuple[float, float]:
        rewards = model.score(ROWS)
        wins = [first - second for first, second in rewards[:8]]
        ties = [abs(first - second) for first, second in rewards[8:]]
        return sum(wins) / len(wins), sum(ties) / len(ties)

    model = trained(Component(name, {}))
    (win, tie), (_, left_apart) = gaps(model), gaps(trained(Component("bradley-terry", {})))
    assert win > 100 * tie
    assert left_apart > 100 * tie
    # What the loss has learnt is saved with the head.
    model.save(tmp_path / "model")
    loaded = RewardModel.load(tmp_path / "model")
    assert loaded.paradigm.criterion.state_dict() == model.paradigm.criterion.state_dict()


def test_the_run_files_of_the_readme_build() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        table = tomllib.loads(block)["loss"]
        RewardModel.build(backbone=Component("tiny", {}), loss=Component(table.pop("name"), table))
