"""The losses are the models in print, go over into Bradley-Terry, and find how readily there are ties."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from basereward_ties.losses import Davidson, RaoKupper, TieLoss
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison
from basereward.losses import BradleyTerry, Targets

LOSSES = [Davidson, RaoKupper]
MARGINS = st.floats(-30, 30)

# Ranks of each comparison's responses, and its weight: wins, ties, and both in one comparison.
RANKED = [([0, 1], 1.0), ([0, 0], 1.0), ([2, 0, 0], 0.5), ([1, 0, 2, 1], 3.0)]
TARGETS = Targets.of(
    [Comparison("p", list("abcd")[: len(ranks)], ranks=ranks, weight=weight) for ranks, weight in RANKED]
)


def davidson(first: float, second: float, nu: float) -> tuple[float, float, float]:
    """Win, tie and loss of two strengths, as Davidson 1970 has them."""
    tie = nu * math.sqrt(first * second)
    whole = first + second + tie
    return first / whole, tie / whole, second / whole


def rao_kupper(first: float, second: float, theta: float) -> tuple[float, float, float]:
    """Win, tie and loss of two strengths, as Rao and Kupper 1967 have them."""
    one, other = first + theta * second, theta * first + second
    return first / one, (theta**2 - 1) * first * second / (one * other), second / other


def exact(cls: type[TieLoss], value: float) -> TieLoss:
    """Return a loss whose parameter has 53 bits of its value, not 24."""
    loss = cls().double()
    (parameter,) = loss.parameters()
    parameter.data.fill_(math.log(value))
    return loss


@given(MARGINS, st.floats(0.01, 20))
def test_davidson_is_his_formula(margin: float, nu: float) -> None:
    found = exact(Davidson, nu).outcomes(torch.tensor(margin, dtype=torch.float64))
    expected = davidson(math.exp(margin / 2), math.exp(-margin / 2), nu)
    assert [float(share) for share in found] == pytest.approx(expected, rel=1e-12)


@given(MARGINS, st.floats(0.01, 5))
def test_rao_and_kupper_is_their_formula(margin: float, threshold: float) -> None:
    found = exact(RaoKupper, threshold).outcomes(torch.tensor(margin, dtype=torch.float64))
    expected = rao_kupper(math.exp(margin / 2), math.exp(-margin / 2), math.exp(threshold))
    assert [float(share) for share in found] == pytest.approx(expected, rel=1e-11)


def rewards_of(targets: Targets) -> list[float]:
    return torch.randn(len(targets.group), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize(
    ("cls", "value", "model", "own"),
    [(Davidson, 1.7, davidson, 1.7), (RaoKupper, 0.6, rao_kupper, math.exp(0.6))],
    ids=["davidson", "rao-kupper"],
)
def test_the_loss_is_the_weighted_mean_of_minus_the_log_likelihood_of_pairs(
    cls: type[TieLoss], value: float, model: Callable[..., tuple[float, float, float]], own: float
) -> None:
    rewards, costs, weights, first = rewards_of(TARGETS), [], [], 0
    for ranks, weight in RANKED:
        for here in range(len(ranks)):
            for there in range(here + 1, len(ranks)):
                win, tie, loss = model(math.exp(rewards[first + here]), math.exp(rewards[first + there]), own)
                order = (ranks[here] > ranks[there]) - (ranks[here] < ranks[there])
                costs.append(-math.log({-1: win, 0: tie, 1: loss}[order]))
                weights.append(weight)
        first += len(ranks)
    found = exact(cls, value)(torch.tensor(rewards, dtype=torch.float64), TARGETS)
    # 1 + 1 + 3 * 0.5 + 6 * 3 = 21.5
    assert found.weight.item() == sum(weights) == 21.5
    total = math.fsum(cost * weight for cost, weight in zip(costs, weights, strict=True))
    assert found.loss.item() == pytest.approx(total / 21.5, rel=1e-12)


@pytest.mark.parametrize("cls", LOSSES)
def test_rewards_and_parameter_have_the_gradient_of_finite_differences(cls: type[TieLoss]) -> None:
    loss = exact(cls, 0.8)
    ((name, parameter),) = loss.named_parameters()
    rewards = torch.tensor(rewards_of(TARGETS), dtype=torch.float64, requires_grad=True)

    def of(rewards: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.func.functional_call(loss, {name: value}, (rewards, TARGETS))
        return output.loss

    assert torch.autograd.gradcheck(of, (rewards, parameter.detach().clone().requires_grad_()))


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("value", [1e-6, 1.0, 50.0])
def test_far_out_loss_and_all_gradients_are_finite(cls: type[TieLoss], value: float) -> None:
    loss = cls(**{"nu" if cls is Davidson else "threshold": value})
    for sign in (1.0, -1.0):
        rewards = torch.tensor([sign * 1e4, -sign * 1e4] * 6)[: len(TARGETS.group)].requires_grad_()
        found = loss(rewards, TARGETS).loss
        found.backward()
        assert found.isfinite()
        for tensor in (rewards, *loss.parameters()):
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()


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


def pairs(*, num_ties: int, num_wins: int, weight: float = 1.0) -> Targets:
    ranks = [[0, 0]] * num_ties + [[0, 1]] * num_wins
    return Targets.of([Comparison("p", ["a", "b"], ranks=own, weight=weight) for own in ranks])


@pytest.mark.parametrize("cls", LOSSES)
def test_a_learnt_parameter_finds_the_share_of_ties(cls: type[TieLoss]) -> None:
    # Of equal rewards nothing but the parameter can be learnt.
    targets, rewards, loss = pairs(num_ties=3, num_wins=1), torch.zeros(8), cls()
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss(rewards, targets).loss.backward()
        optimizer.step()
    assert loss.outcomes(torch.zeros(())).tie.item() == pytest.approx(3 / 4, abs=1e-3)


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("learn", [True, False])
def test_fitting_finds_the_share_of_ties_and_leaves_the_rest_alone(cls: type[TieLoss], learn: bool) -> None:
    loss, rewards = cls(learn=learn), torch.zeros(40, requires_grad=True)
    loss.fit(rewards, pairs(num_ties=1, num_wins=19))
    assert loss.outcomes(torch.zeros(())).tie.item() == pytest.approx(1 / 20, abs=1e-4)
    (parameter,) = loss.parameters()
    assert parameter.requires_grad is learn
    assert parameter.grad is None
    assert rewards.grad is None


@pytest.mark.parametrize("cls", LOSSES)
def test_fitting_recovers_the_parameter_that_outcomes_were_drawn_with(cls: type[TieLoss]) -> None:
    # Weights stand for frequencies: each margin has its three outcomes as often as they are likely.
    true, rows, rewards = exact(cls, 0.4), [], []
    for margin in (-3.0, -1.0, 0.0, 0.5, 2.0):
        shares = true.outcomes(torch.tensor(margin, dtype=torch.float64))
        for ranks, share in zip(([0, 1], [0, 0], [1, 0]), shares, strict=True):
            rows.append(Comparison("p", ["a", "b"], ranks=ranks, weight=float(share)))
            rewards += [margin, 0.0]
    loss = cls()
    loss.fit(torch.tensor(rewards), Targets.of(rows))
    (parameter,) = loss.parameters()
    assert parameter.exp().item() == pytest.approx(0.4, rel=1e-3)


def no_weight() -> Targets:
    return pairs(num_ties=1, num_wins=1, weight=0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Davidson(nu=0), "nu is a finite number > 0, not 0"),
        (lambda: RaoKupper(threshold=-1), "threshold is a finite number > 0, not -1"),
        (
            lambda: Davidson().fit(torch.zeros(4), pairs(num_ties=2, num_wins=0)),
            "fit needs ties and pairs that are none; of 2 pairs 2 are ties",
        ),
        (
            lambda: RaoKupper().fit(torch.zeros(4), pairs(num_ties=0, num_wins=2)),
            "fit needs ties and pairs that are none; of 2 pairs 0 are ties",
        ),
        (
            lambda: Davidson().fit(torch.zeros(4), no_weight()),
            "fit needs ties and pairs that are none; of 0 pairs 0 are ties",
        ),
    ],
)
def test_what_cant_be_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
