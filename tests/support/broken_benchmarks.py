"""Benchmarks that break one promise each; all are `comparisons` but for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mutants import Mutant
from small import benchmark_options

from basereward.comparison import Comparison
from basereward.evaluation.benchmarks.comparisons import Comparisons
from basereward.stats.metric import Score
from basereward.testing import benchmarks

GIVEN = benchmark_options("comparisons")
Rewards = Sequence[Sequence[float] | None]


class Shuffled(Comparisons):
    """Has another order each time it is made."""

    def comparisons(self) -> Any:
        rows = list(self)
        return [rows[at] for at in torch.randperm(len(rows)).tolist()]


class Opens(Comparisons):
    """Opens an image before it is asked for."""

    def comparisons(self) -> Any:
        Comparison("p", ["a"], images=[b"no image"]).images[0].open()
        return super().comparisons()


class Changed(Comparisons):
    """Changes the official score."""

    def changed(self, score: Score) -> Score:
        return score

    def report(self, rewards: Rewards) -> dict[str, Score]:
        return {name: self.changed(score) for name, score in super().report(rewards).items()}


class OffInterval(Changed):
    """Has an interval that doesn't hold the value."""

    def changed(self, score: Score) -> Score:
        return replace(score, low=score.value + 0.1, high=score.value + 0.2)


class VariantFirst(Changed):
    """Calls the official metric a variant."""

    def changed(self, score: Score) -> Score:
        return replace(score, kind="variant")


class Resamples(Changed):
    """Has another interval each time."""

    def changed(self, score: Score) -> Score:
        return replace(score, high=score.high + float(torch.rand(())))


class PrefersTheWorse(Changed):
    """Counts a pair as right where the worse response has the higher reward."""

    def changed(self, score: Score) -> Score:
        return replace(score, value=1 - score.value, low=0.0, high=1.0)


class LikesTheOpposite(Changed):
    """Gives half of its unit_scores to rewards that are all the wrong way round."""

    def changed(self, score: Score) -> Score:
        return replace(score, value=score.value or 0.5, low=0.0, high=1.0)


class CountsMissing(Comparisons):
    """Takes a comparison without rewards for one with equal ones."""

    def report(self, rewards: Rewards) -> dict[str, Score]:
        filled = [
            [0.0] * len(item.ranks) if found is None else found
            for item, found in zip(self.items, rewards, strict=True)
        ]
        return super().report(filled)


class ReportsNothing(Comparisons):
    """Reports on nothing."""

    def report(self, rewards: Rewards) -> dict[str, Score]:
        if all(found is None for found in rewards):
            return {}
        return super().report(rewards)


class HasThreshold(Comparisons):
    """Counts rewards above 10 as 10."""

    def report(self, rewards: Rewards) -> dict[str, Score]:
        cut = [None if found is None else [min(reward, 10.0) for reward in found] for found in rewards]
        return super().report(cut)


class Lenient(Comparisons):
    """Fills up what is missing."""

    def report(self, rewards: Rewards) -> dict[str, Score]:
        return super().report([*rewards, *[None] * (len(self.items) - len(rewards))])


class Empty(Comparisons):
    """Is empty where there is no file."""

    def __init__(self, path: str) -> None:
        self.is_there = Path(path).exists()
        if self.is_there:
            super().__init__(path)

    def comparisons(self) -> Any:
        return super().comparisons() if self.is_there else []


MUTANTS = [
    Mutant(benchmarks.has_a_fixed_order, Shuffled, "its comparisons differ from time to time", GIVEN),
    Mutant(
        benchmarks.opens_no_image,
        Opens,
        "an image was opened; a baseline that needs none should not wait for them",
        GIVEN,
    ),
    Mutant(
        benchmarks.reports_scores,
        OffInterval,
        "'pair accuracy' is #, outside its interval # to #",
        GIVEN,
    ),
    Mutant(
        benchmarks.reports_scores,
        VariantFirst,
        "the first metric, 'pair accuracy', is of kind 'variant', not 'official'",
        GIVEN,
    ),
    Mutant(benchmarks.reports_alike_twice, Resamples, "the same rewards give two reports", GIVEN),
    Mutant(
        benchmarks.gives_perfect_rewards_the_maximum,
        PrefersTheWorse,
        "perfect rewards score #, random ones (seed #) #",
        GIVEN,
    ),
    Mutant(
        benchmarks.gives_reversed_rewards_the_minimum,
        LikesTheOpposite,
        "reversed rewards score #, random ones (seed #) #",
        GIVEN,
    ),
    Mutant(
        benchmarks.leaves_out_what_was_not_scored,
        CountsMissing,
        "perfect rewards score # of #, and # of # when comparison # has none",
        GIVEN,
    ),
    Mutant(
        benchmarks.leaves_out_what_was_not_scored,
        ReportsNothing,
        "where nothing was scored it reports all the same; raise DataError",
        GIVEN,
    ),
    Mutant(
        benchmarks.knows_differences_only,
        HasThreshold,
        "'pair accuracy' is #, and # with numbers added to the rewards of whole comparisons",
        GIVEN,
    ),
    Mutant(
        benchmarks.refuses_rewards_that_do_not_fit,
        Lenient,
        "rewards of a comparison too few go unnoticed; raise ValueError",
        GIVEN,
    ),
    Mutant(
        benchmarks.refuses_a_bad_file,
        Empty,
        "a file that is not there is read as an empty one; raise DataError",
        GIVEN,
    ),
]
