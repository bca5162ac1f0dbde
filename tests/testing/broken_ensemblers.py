"""Ensemblers that break one promise each."""

from __future__ import annotations

from typing import Any

import torch
from mutants import Mutant
from torch import Tensor

from basereward.ensemblers import Mean
from basereward.testing import ensemblers


class OfMembers(Mean):
    """Averages the wrong way."""

    def __call__(self, members: Tensor) -> Tensor:
        return members.mean(1)


class Overwrites(Mean):
    """Centres the members in place."""

    def __call__(self, members: Tensor) -> Tensor:
        return super().__call__(members.sub_(members.mean()))


class FirstCountsMore(Mean):
    """Counts the first member twice."""

    def __call__(self, members: Tensor) -> Tensor:
        return super().__call__(torch.cat([members[:1], members]))


class Sum(Mean):
    """Adds the members up."""

    def __call__(self, members: Tensor) -> Tensor:
        return members.sum(0)


class Uncertain(Mean):
    """Subtracts how far the members are apart, of which one member has no estimate."""

    def __call__(self, members: Tensor) -> Tensor:
        apart = (members.square().mean(0) - members.mean(0).square()).relu().sqrt()
        return members.mean(0) - apart * len(members) / (len(members) - 1)


class Guesses(Mean):
    """Draws the members' weights when it is fitted."""

    def fit(self, members: Tensor, comparisons: Any) -> None:
        self.weights = torch.randn(len(members), 1)

    def __call__(self, members: Tensor) -> Tensor:
        return (self.weights * members).sum(0) * torch.rand(())


MUTANTS = [
    Mutant(ensemblers.gives_one_reward_a_response, OfMembers, "of members [#, #] it makes [#], not [#]"),
    Mutant(
        ensemblers.gives_one_reward_a_response,
        Overwrites,
        "the members' rewards, after and before: they differ by #; none is allowed",
    ),
    Mutant(
        ensemblers.ignores_the_order_of_members,
        FirstCountsMore,
        "rewards with the members in the order [#, #, #, #], and in theirs: they differ by #; "
        "at most # is allowed",
    ),
    Mutant(
        ensemblers.keeps_a_unanimous_vote,
        Sum,
        "rewards that all members give, and theirs: they differ by #; at most # is allowed",
    ),
    Mutant(
        ensemblers.keeps_a_single_member,
        Uncertain,
        "rewards of one member, and its own: they differ by #; none is allowed",
    ),
    Mutant(
        ensemblers.can_be_fitted,
        Guesses,
        "rewards of the same members, twice after fit: they differ by #; none is allowed",
    ),
]
