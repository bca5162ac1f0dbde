"""Checks of a benchmark: its official metric follows from differences of rewards alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.stats.metric import Score
from basereward.testing import datasets
from basereward.testing.files import path_of
from basereward.testing.subject import Subject, checks_of, require

Rewards = list[list[float] | None]
NUM_DRAWS = 8
TOLERANCE = 1e-9


def has_a_fixed_order(subject: Subject) -> None:
    """Its comparisons are the same every time, and have ranks."""
    first = _comparisons(subject.build(seed=0))
    require(first, "it has no comparison")
    benchmark = subject.build(seed=1)
    for again in (_comparisons(benchmark), _comparisons(benchmark)):
        require(again == first, "its comparisons differ from time to time")
    require(
        any(len(set(row.ranks or ())) > 1 for row in first),
        "no comparison of it has responses of unequal ranks",
    )


def opens_no_image(subject: Subject) -> None:
    """Its comparisons, and a report on them, need the annotation alone."""

    def refuse(self: Image, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("an image was opened")

    with patch.object(Image, "open", refuse):
        try:
            benchmark = subject.build()
            benchmark.report(_perfect(_comparisons(benchmark)))
        except AssertionError as error:
            require(False, f"{error}; a baseline that needs none should not wait for them")


def reports_scores(subject: Subject) -> None:
    """A report has a `Score` by each metric's name, the official one first, within its interval."""
    benchmark = subject.build()
    report = benchmark.report(_random(_comparisons(benchmark), 0))
    require(report, "the report is empty")
    for name, score in report.items():
        require(isinstance(score, Score), f"{name!r} is a {type(score).__name__}, not a Score")
        require(score.name == name, f"the score of {name!r} calls itself {score.name!r}")
        require(
            score.low - TOLERANCE <= score.value <= score.high + TOLERANCE,
            f"{name!r} is {score.value:.4g}, outside its interval {score.low:.4g} to {score.high:.4g}",
        )
        require(score.num > 0, f"{name!r} is of {score.num} units")
    first, kind = next((name, score.kind) for name, score in report.items())
    require(kind == "official", f"the first metric, {first!r}, is of kind {kind!r}, not 'official'")


def reports_alike_twice(subject: Subject) -> None:
    """The same rewards give the same report, intervals included."""
    benchmark, other = subject.build(seed=0), subject.build(seed=1)
    rewards = _random(_comparisons(benchmark), 1)
    expected = benchmark.report(rewards)
    for report in (benchmark.report(rewards), other.report(rewards)):
        require(report == expected, "the same rewards give two reports")


def gives_perfect_rewards_the_maximum(subject: Subject) -> None:
    """Rewards in the order of the ranks have the highest official score, above that of their reverse."""
    benchmark = subject.build()
    rows = _comparisons(benchmark)
    best = _official(benchmark, _perfect(rows))
    for name, rewards in _others(rows).items():
        value = _official(benchmark, rewards)
        require(value <= best + TOLERANCE, f"perfect rewards score {best:.4g}, {name} {value:.4g}")
    value = _official(benchmark, _reversed(rows))
    require(value < best, f"perfect rewards score {best:.4g}, reversed ones {value:.4g}")


def gives_reversed_rewards_the_minimum(subject: Subject) -> None:
    """Rewards against the order of the ranks have the lowest official score."""
    benchmark = subject.build()
    rows = _comparisons(benchmark)
    worst = _official(benchmark, _reversed(rows))
    for name, rewards in _others(rows).items():
        value = _official(benchmark, rewards)
        require(value >= worst - TOLERANCE, f"reversed rewards score {worst:.4g}, {name} {value:.4g}")


def leaves_out_what_was_not_scored(subject: Subject) -> None:
    """A comparison without rewards is in no number; without any rewards there is no report."""
    benchmark = subject.build()
    rows = _comparisons(benchmark)
    perfect = _perfect(rows)
    whole = next(iter(benchmark.report(perfect).values()))
    for number in range(min(len(rows), 3)):
        if len(rows) == 1:
            break
        some: Rewards = [None if place == number else scores for place, scores in enumerate(perfect)]
        try:
            score = next(iter(benchmark.report(some).values()))
        except DataError:
            continue  # the others may have no pair of known order
        require(
            score.num <= whole.num and score.value >= whole.value - TOLERANCE,
            f"perfect rewards score {whole.value:.4g} of {whole.num}, and {score.value:.4g} of {score.num} "
            f"when comparison {number} has none",
        )
        require(
            score.num < whole.num or not _is_evaluable(rows[number]),
            f"the official score is of {score.num} units with and without comparison {number}",
        )
    try:
        benchmark.report([None] * len(rows))
    except DataError:
        return
    require(False, "where nothing was scored it reports all the same; raise DataError")


def knows_differences_only(subject: Subject) -> None:
    """A number added to all rewards of a comparison changes nothing, unless the benchmark is absolute."""
    benchmark = subject.build()
    if benchmark.is_absolute:
        return
    rows = _comparisons(benchmark)
    # Multiples of 1/8, whose sums with 64, 128, ... are exact.
    rewards = _random(rows, 2)
    shifted: Rewards = [
        [reward + 64.0 * (1 + number % 5) for reward in scores or ()] for number, scores in enumerate(rewards)
    ]
    before, after = benchmark.report(rewards), benchmark.report(shifted)
    for name, score in before.items():
        require(
            math.isclose(after[name].value, score.value, abs_tol=TOLERANCE),
            f"{name!r} is {score.value:.4g}, and {after[name].value:.4g} with numbers added to the "
            "rewards of whole comparisons",
        )


def refuses_rewards_that_do_not_fit(subject: Subject) -> None:
    """Rewards of too few comparisons, or too few of one, are a `ValueError`."""
    benchmark = subject.build()
    rows = _comparisons(benchmark)
    perfect = _perfect(rows)
    for shortage, rewards in {
        "a comparison too few": perfect[:-1],
        "a reward too few": [(perfect[0] or [])[:-1], *perfect[1:]],
    }.items():
        try:
            benchmark.report(rewards)
        except ValueError:
            continue
        except Exception as error:
            require(False, f"rewards of {shortage} are a {type(error).__name__}, not a ValueError: {error}")
        require(False, f"rewards of {shortage} go unnoticed; raise ValueError")


def refuses_a_bad_file(subject: Subject) -> None:
    """A file that isn't there, or that is no such file, is a `DataError` and never silently empty."""
    path_of(subject)
    datasets.refuses_a_bad_file(subject)


def _comparisons(benchmark: Any) -> list[Comparison]:
    return list(benchmark.comparisons())


def _perfect(rows: Sequence[Comparison]) -> Rewards:
    # Around 0, from which on an absolute benchmark may take a reward for right.
    return [[0.5 - float(rank) for rank in _ranks(row)] for row in rows]


def _reversed(rows: Sequence[Comparison]) -> Rewards:
    return [[float(rank) - 0.5 for rank in _ranks(row)] for row in rows]


def _random(rows: Sequence[Comparison], seed: int) -> Rewards:
    generator = random.Random(seed)
    return [[generator.randrange(-64, 64) / 8 for _ in row.responses] for row in rows]


def _others(rows: Sequence[Comparison]) -> dict[str, Rewards]:
    return {f"random ones (seed {seed})": _random(rows, seed) for seed in range(NUM_DRAWS)}


def _ranks(row: Comparison) -> Sequence[float]:
    return row.ranks or [0.0] * len(row.responses)


def _is_evaluable(row: Comparison) -> bool:
    return len(set(row.ranks or ())) > 1


def _official(benchmark: Any, rewards: Rewards) -> float:
    score: Score = next(iter(benchmark.report(rewards).values()))
    return score.value


CHECKS = checks_of(__name__)
