"""Gradients: averaged and clipped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from basereward.training.gradients import average_and_clip


@given(weight=st.floats(0.1, 1e4), clip=st.sampled_from([0.0, 0.1, 1e6]))
def test_clipping_is_that_of_torch_on_the_mean_gradient(weight: float, clip: float) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))]
    theirs = [nn.Parameter(torch.zeros_like(parameter)) for parameter in ours]
    for mine, other in zip(ours[:2], theirs, strict=False):  # the third has no gradient
        mine.grad = torch.randn_like(mine) * weight
        other.grad = mine.grad / weight
    norm = average_and_clip(ours, torch.tensor(weight, dtype=torch.float64), clip)
    expected = nn.utils.clip_grad_norm_(theirs, clip or float("inf"))
    assert float(norm) == pytest.approx(float(expected), rel=1e-5)
    for mine, other in zip(ours[:2], theirs, strict=False):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_without_weight_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.zeros(2)
    assert float(average_and_clip([parameter], torch.tensor(0.0, dtype=torch.float64), 1.0)) == 0
    assert parameter.grad.tolist() == [0, 0]
    assert float(average_and_clip([nn.Parameter(torch.ones(2))], torch.tensor(1.0).double(), 1.0)) == 0
