"""StableReinforce's clipping of ratios, by hand: PPO's term with and without it."""

from __future__ import annotations

import math

import pytest
import torch

from basereward.integrations.ratio_clip import clip_ratios

EPSILON = 0.2


def surrogate(log_ratio: float, advantage: float, *, clips: bool) -> tuple[float, float]:
    """Return PPO's loss of a token and its gradient with respect to the token's log-probability."""
    old = torch.tensor([[-3.0]], dtype=torch.float64)
    logps = (old + log_ratio).requires_grad_()
    ratio = ((clip_ratios(logps, old, 1000.0) if clips else logps) - old).exp()
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantage).sum()
    loss.backward()
    assert logps.grad is not None
    return loss.item(), logps.grad.item()


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "plain", "clipped"),
    [
        # A < 0 and r = e^10 = 22026 > 1.2: the minimum takes r A, and PPO's clipping bounds nothing. With the
        # clipping before it, r = 1000, and the token has no gradient.
        (10.0, -1.0, (math.exp(10), math.exp(10)), (1000.0, 0.0)),
        # A < 0 and r = 2: within the bounds both are r A = -2, whose gradient is r.
        (math.log(2), -1.0, (2.0, 2.0), (2.0, 2.0)),
        # A > 0 and r = e^10: PPO's clipping takes 1.2 A, which has no gradient, with either.
        (10.0, 1.0, (-1.2, 0.0), (-1.2, 0.0)),
        # A > 0 and r = e^-10 = 0.0000454: the minimum takes r A; with the clipping before it 0.001 A.
        (-10.0, 1.0, (-math.exp(-10), -math.exp(-10)), (-0.001, 0.0)),
        # A < 0 and r = e^-10: PPO's clipping takes 0.8 A, with either.
        (-10.0, -1.0, (0.8, 0.0), (0.8, 0.0)),
        # r = 1, as with one step a batch: nothing changes.
        (0.0, -1.0, (1.0, 1.0), (1.0, 1.0)),
    ],
)
def test_the_term_and_its_gradient_are_those_of_the_formula(
    log_ratio: float, advantage: float, plain: tuple[float, float], clipped: tuple[float, float]
) -> None:
    assert surrogate(log_ratio, advantage, clips=False) == pytest.approx(plain, rel=1e-12)
    assert surrogate(log_ratio, advantage, clips=True) == pytest.approx(clipped, rel=1e-12)


def test_a_ratio_beyond_the_numbers_overflows_without_it_alone() -> None:
    old = torch.tensor([[-100.0]])
    logps = torch.tensor([[0.0]], requires_grad=True)  # e^100 is beyond fp32
    assert torch.isinf((logps - old).exp()).all()
    ratio = (clip_ratios(logps, old, 1000.0) - old).exp()
    ratio.sum().backward()
    # ln 1000 = 6.9078 beside 100 is rounded to 24 bits: 100 * 2**-24 = 6e-6.
    assert ratio.item() == pytest.approx(1000.0, rel=2e-5)
    assert logps.grad is not None
    assert logps.grad.item() == 0.0
