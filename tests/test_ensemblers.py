"""Ensemblers: several models' rewards as one."""

from __future__ import annotations

import pytest
import torch

from basereward.ensemblers import Mean


def test_mean_is_the_mean_over_members() -> None:
    members = torch.tensor([[1.0, -2.0], [2.0, 0.0], [6.0, 5.0]])
    assert Mean()(members).tolist() == [3.0, 1.0]  # (1 + 2 + 6) / 3, (-2 + 0 + 5) / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_single_member_is_returned_unchanged(dtype: torch.dtype) -> None:
    members = torch.randn(1, 100, dtype=dtype)
    rewards = Mean()(members)
    assert rewards.dtype == dtype
    assert torch.equal(rewards, members[0])


def test_unanimous_members_are_returned_unchanged() -> None:
    rewards = torch.randn(100)
    assert torch.equal(Mean()(rewards.expand(7, -1)), rewards)


def test_order_of_members_does_not_matter() -> None:
    members = torch.randn(9, 1000) * 10.0 ** torch.arange(-4.0, 5.0)[:, None]
    assert torch.equal(Mean()(members), Mean()(members.flip(0)))


@pytest.mark.parametrize(
    ("shape", "shown"), [((3,), r"\[3\]"), ((0, 3), r"\[0, 3\]"), ((1, 2, 3), r"\[1, 2, 3\]")]
)
def test_members_of_another_shape_are_refused(shape: tuple[int, ...], shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^members must be \[M, N\] with M >= 1, not of shape {shown}$"):
        Mean()(torch.zeros(shape))
