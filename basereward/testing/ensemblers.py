"""Checks of an ensembler: its members have no order, and equal members agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.protocols import Ensembler
from basereward.testing.material import comparisons
from basereward.testing.subject import (
    TOLERANCE,
    Subject,
    checks_of,
    does_not_apply,
    require,
    require_alike,
    require_near,
    require_rewards,
)

READS_IMAGES = (True, False, True, False)
"""Whether each member reads images."""

NUM_MEMBERS = len(READS_IMAGES)
SEEN = (0, 1, 0)
"""Images of each comparison."""


def gives_one_reward_a_response(subject: Subject) -> None:
    """[M, N] rewards become [N], finite, and the members' rewards are not changed in place."""
    members = _members()
    before = members.clone()
    rewards = _fitted(subject, members)(members, _rows())
    num = members.shape[1]
    require_rewards(rewards, num, f"of members {list(members.shape)} it makes")
    require_alike(members, before, "the members' rewards, after and before")


def ignores_the_order_of_members(subject: Subject) -> None:
    """The order of members changes nothing."""
    members = _members()
    expected = _joined(subject, members)
    for order in ([3, 2, 1, 0], [1, 2, 3, 0]):
        require_near(
            _joined(subject, members[order], order),
            expected,
            f"rewards with the members in the order {order}, and in theirs",
        )


def ignores_other_comparisons(subject: Subject) -> None:
    """A comparison alone, and beside others, has the same rewards."""
    members, rows = _members(), _rows()
    ensembler = _fitted(subject, members)
    whole, start = ensembler(members, rows), 0
    for row in rows:
        stop = start + len(row.responses)
        require_near(
            ensembler(members[:, start:stop], [row]),
            whole[start:stop],
            f"rewards of {row.id} alone, and beside others",
        )
        start = stop


def keeps_a_unanimous_vote(subject: Subject) -> None:
    """Equal rewards of all members are the ensemble's rewards; in another unit, their order is kept."""
    member = _members()[:1]
    actual = _joined(subject, member.expand(NUM_MEMBERS, -1).clone())
    _require_kept(subject, actual, member[0], "rewards that all members give, and theirs", TOLERANCE)


def keeps_a_single_member(subject: Subject) -> None:
    """A single member's rewards are returned unchanged; in another unit, their order is kept."""
    member = _members()[:1]
    _require_kept(subject, _joined(subject, member), member[0], "rewards of one member, and its own", 0.0)


def counts_all_scales_alike(subject: Subject) -> None:
    """With `is_scale_free`, a member whose rewards are a thousand times as large changes no order."""
    if not subject.cls.is_scale_free:
        does_not_apply("it doesn't say that it is scale-free")
    members = _members()
    larger = members * torch.tensor([1.0, 1000.0, 1.0, 1.0])[:, None]
    actual, expected = _joined(subject, larger), _joined(subject, members)
    require(
        _orders(actual) == _orders(expected),
        f"with one member's rewards a thousand times as large the order is {_orders(actual)}, not "
        f"{_orders(expected)}",
    )


def routes_to_somebody(subject: Subject) -> None:
    """`route` says of each member whether it scores a comparison, and of at least one that it does."""
    if subject.cls.route is Ensembler.route:
        does_not_apply("all members score every comparison")
    ensembler = _fitted(subject, _members())
    for row in comparisons(SEEN):
        for readers in (READS_IMAGES, (True,) * NUM_MEMBERS, (False,) * NUM_MEMBERS):
            routed = ensembler.route(row, readers)
            require(
                len(routed) == NUM_MEMBERS and any(routed),
                f"of {NUM_MEMBERS} members route returns {routed}; needed: a bool for each, one of them True",
            )


def can_be_fitted(subject: Subject) -> None:
    """After `fit` on rewards of known order it is a function: finite, and the same every time."""
    _require_fit(subject)
    rows = comparisons()
    # Two members that know the order, one that has it wrong, one that knows nothing.
    right = torch.tensor([-rank for row in rows for rank in row.ranks or ()])
    noise = torch.randn(len(right), generator=torch.Generator().manual_seed(0))
    members = torch.stack([2 * right, right + 0.1, -right, noise])
    ensembler = subject.build()
    ensembler.fit(members, rows)
    first, second = ensembler(members, rows), ensembler(members, rows)
    require(bool(first.isfinite().all()), f"after fit its rewards are {first.tolist()}, which are not finite")
    require_alike(second, first, "rewards of the same members, twice after fit")
    again = subject.build()
    again.fit(members, rows)
    require_near(again(members, rows), first, "rewards after the same fit of another one")


def saves_and_loads(subject: Subject) -> None:
    """`state` survives JSON: after `load_state` the rewards are the same, bit for bit."""
    _require_fit(subject)
    members, rows = _members(), _rows()
    ensembler = _fitted(subject, members)
    try:
        state = json.loads(json.dumps(ensembler.state()))
    except TypeError as error:
        require(False, f"its state can't be written as JSON: {error}")
    again = subject.build()
    again.load_state(state)
    require_alike(again(members, rows), ensembler(members, rows), "rewards after and before saving")


def _require_fit(subject: Subject) -> None:
    if not subject.cls.learns:
        does_not_apply("it learns nothing")


def _rows() -> tuple[Comparison, ...]:
    return comparisons(SEEN)


def _members() -> Tensor:  # [M, N]
    """Return rewards of members that know the order more or less."""
    right = torch.tensor([-rank for row in _rows() for rank in row.ranks or ()])
    noise = torch.randn(NUM_MEMBERS, len(right), generator=torch.Generator().manual_seed(3))
    return right + 0.7 * noise


def _fitted(subject: Subject, members: Tensor) -> Any:
    """Return an ensembler, fitted to the members if it learns."""
    ensembler = subject.build()
    if ensembler.learns:
        ensembler.fit(members, _rows())
    return ensembler


def _joined(subject: Subject, members: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """Return the ensemble's rewards, each member scoring the comparisons that it is routed.

    Args:
        subject: The ensembler.
        members: [M, N].
        order: The place in `READS_IMAGES` of each member; None for their own.
    """
    ensembler = _fitted(subject, members)
    rows = _rows()
    readers = [READS_IMAGES[place] for place in order or range(len(members))]
    routed = [ensembler.route(row, readers) for row in rows for _ in row.responses]  # [N, M]
    members = members.masked_fill(~torch.tensor(routed).T, float("nan"))
    rewards: Tensor = ensembler(members, rows)
    return rewards


def _require_kept(subject: Subject, actual: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    """Raise unless rewards are as they were, or in the same order where they are in another unit."""
    if subject.cls.unit is None:
        require_alike(actual, expected, what, tolerance=tolerance)
        return
    require(
        _orders(actual) == _orders(expected),
        f"{what}: their orders are {_orders(actual)} and {_orders(expected)}",
    )


def _orders(rewards: Tensor) -> list[list[int]]:
    """Return each comparison's responses from the lowest reward to the highest."""
    sizes = [len(row.responses) for row in _rows()]
    return [part.argsort().tolist() for part in rewards.split(sizes)]


CHECKS = checks_of(__name__)
