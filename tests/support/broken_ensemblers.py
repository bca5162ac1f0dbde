"""Ensemblers that break one promise each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mutants import Mutant
from torch import Tensor

from basereward.ensemblers import AccuracyWeighted, Mean, RankMean, Routed
from basereward.testing import ensemblers


class OfMembers(Mean):
    """Averages the wrong way."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return members.mean(1)


class Overwrites(Mean):
    """Centres the members in place."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return super().__call__(members.sub_(members.mean()), comparisons)


class FirstCountsMore(Mean):
    """Counts the first member twice."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return super().__call__(torch.cat([members[:1], members]), comparisons)


class RoutesByPlace(Routed):
    """Takes the first member for the one that reads text, wherever it stands."""

    def route(self, comparison: Any, reads_images: Sequence[bool]) -> list[bool]:
        first = [place == 0 for place in range(len(reads_images))]
        return [not each for each in first] if comparison.images else first


class AcrossComparisons(RankMean):
    """Ranks all responses that happen to come together."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return members.argsort(1).argsort(1).float().mean(0)


class Sum(Mean):
    """Adds the members up."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return members.sum(0)


class WorstFirst(RankMean):
    """Ranks from the other end."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return -super().__call__(members, comparisons)


class Uncertain(Mean):
    """Subtracts how far the members are apart, of which one member has no estimate."""

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        apart = (members.square().mean(0) - members.mean(0).square()).relu().sqrt()
        return members.mean(0) - apart * len(members) / (len(members) - 1)


class SaysScaleFree(Mean):
    """Averages, and says that scales don't matter."""

    is_scale_free = True


class RoutesToNobody(Routed):
    """Has nobody to ask where no member reads text alone."""

    def route(self, comparison: Any, reads_images: Sequence[bool]) -> list[bool]:
        return [not reads for reads in reads_images]


class Guesses(Mean):
    """Draws the members' weights when it is fitted."""

    def fit(self, members: Tensor, comparisons: Any) -> None:
        self.weights = torch.randn(len(members), 1)

    def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
        return (self.weights * members).sum(0) * torch.rand(())


class Rounds(AccuracyWeighted):
    """Keeps two digits of what it has learned."""

    def state(self) -> dict[str, Any]:
        state = super().state()
        return {**state, "weights": [round(weight, 2) for weight in state["weights"]]}


class KeepsTensors(AccuracyWeighted):
    """Keeps what JSON doesn't know."""

    def state(self) -> dict[str, Any]:
        return {"weights": torch.tensor(super().state()["weights"]), "offset": 0.0}


TURNED = "rewards with the members in the order [#, #, #, #], and in theirs"
OTHER_ORDER = f"{TURNED}: they differ by #; at most # is allowed"
MUTANTS = [
    Mutant(ensemblers.gives_one_reward_a_response, OfMembers, "of members [#, #] it makes [#], not [#]"),
    Mutant(
        ensemblers.gives_one_reward_a_response,
        Overwrites,
        "the members' rewards, after and before: they differ by #; none is allowed",
    ),
    Mutant(ensemblers.ignores_the_order_of_members, FirstCountsMore, OTHER_ORDER),
    Mutant(ensemblers.ignores_the_order_of_members, RoutesByPlace, OTHER_ORDER),
    Mutant(
        ensemblers.ignores_other_comparisons,
        AcrossComparisons,
        "rewards of row-# alone, and beside others: they differ by #; at most # is allowed",
    ),
    Mutant(
        ensemblers.keeps_a_unanimous_vote,
        Sum,
        "rewards that all members give, and theirs: they differ by #; at most # is allowed",
    ),
    Mutant(
        ensemblers.keeps_a_unanimous_vote,
        WorstFirst,
        "rewards that all members give, and theirs: their orders are [[#, #], [#, #, #], [#, #]] and "
        "[[#, #], [#, #, #], [#, #]]",
    ),
    Mutant(
        ensemblers.keeps_a_single_member,
        Uncertain,
        "rewards of one member, and its own: they differ by #; none is allowed",
    ),
    Mutant(
        ensemblers.counts_all_scales_alike,
        SaysScaleFree,
        "with one member's rewards a thousand times as large the order is [[#, #], [#, #, #], [#, #]], not "
        "[[#, #], [#, #, #], [#, #]]",
    ),
    Mutant(
        ensemblers.routes_to_somebody,
        RoutesToNobody,
        "of # members route returns [False, False, False, False]; needed: a bool for each, one of them True",
    ),
    Mutant(
        ensemblers.can_be_fitted,
        Guesses,
        "rewards of the same members, twice after fit: they differ by #; none is allowed",
    ),
    Mutant(
        ensemblers.saves_and_loads,
        Rounds,
        "rewards after and before saving: they differ by #; none is allowed",
    ),
    Mutant(
        ensemblers.saves_and_loads,
        KeepsTensors,
        "its state can't be written as JSON: Object of type Tensor is not JSON serializable",
    ),
]
