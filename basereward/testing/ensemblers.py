"""What an ensembler promises: its members have no order, and agree with themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from basereward.testing.material import comparisons
from basereward.testing.subject import Subject, does_not_apply, require, require_alike, shape_of

NUM_MEMBERS = 4
TOLERANCE = 1e-5


def gives_one_reward_a_response(subject: Subject) -> None:
    """[M, N] rewards become [N], finite, and the members' own are left as they are."""
    members = _members()
    before = members.clone()
    rewards = _fitted(subject, members)(members)
    num = members.shape[1]
    require(
        isinstance(rewards, Tensor) and list(rewards.shape) == [num],
        f"of members {list(members.shape)} it makes {shape_of(rewards)}, not [{num}]",
    )
    require(bool(rewards.isfinite().all()), f"its rewards are {rewards.tolist()}, which are not finite")
    require_alike(members, before, "the members' rewards, after and before")


def ignores_the_order_of_members(subject: Subject) -> None:
    """Members that change places change nothing."""
    members = _members()
    expected = _fitted(subject, members)(members)
    for order in ([3, 2, 1, 0], [1, 2, 3, 0]):
        turned = members[order]
        require_alike(
            _fitted(subject, turned)(turned),
            expected,
            f"rewards with the members in the order {order}, and in theirs",
            tolerance=TOLERANCE,
        )


def keeps_a_unanimous_vote(subject: Subject) -> None:
    """Where all members give the same rewards, these are the rewards."""
    member = _members()[:1]
    members = member.expand(NUM_MEMBERS, -1).clone()
    require_alike(
        _fitted(subject, members)(members),
        member[0],
        "rewards that all members give, and theirs",
        tolerance=TOLERANCE,
    )


def keeps_a_single_member(subject: Subject) -> None:
    """One member's rewards are returned as they are."""
    member = _members()[:1]
    require_alike(_fitted(subject, member)(member), member[0], "rewards of one member, and its own")


def can_be_fitted(subject: Subject) -> None:
    """After `fit` on rewards of known order it is a function: finite, and the same every time."""
    if not hasattr(subject.cls, "fit"):
        does_not_apply("it learns nothing")
    rows = comparisons()
    # Two members that know the order, one that has it wrong, one that knows nothing.
    right = torch.tensor([-rank for row in rows for rank in row.ranks or ()])
    noise = torch.randn(len(right), generator=torch.Generator().manual_seed(0))
    members = torch.stack([2 * right, right + 0.1, -right, noise])
    ensembler = subject.build()
    ensembler.fit(members, rows)
    first, second = ensembler(members), ensembler(members)
    require(bool(first.isfinite().all()), f"after fit its rewards are {first.tolist()}, which are not finite")
    require_alike(second, first, "rewards of the same members, twice after fit")
    again = subject.build()
    again.fit(members, rows)
    require_alike(again(members), first, "rewards after the same fit of another one", tolerance=TOLERANCE)


def _members() -> Tensor:  # [M, N]
    num = sum(len(row.responses) for row in comparisons())
    return torch.randn(NUM_MEMBERS, num, generator=torch.Generator().manual_seed(3))


def _fitted(subject: Subject, members: Tensor) -> Any:
    """Return an ensembler that has learned what it learns from the members."""
    ensembler = subject.build()
    if hasattr(ensembler, "fit"):
        ensembler.fit(members, comparisons())
    return ensembler


CHECKS = (
    gives_one_reward_a_response,
    ignores_the_order_of_members,
    keeps_a_unanimous_vote,
    keeps_a_single_member,
    can_be_fitted,
)
