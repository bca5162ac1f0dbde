"""The protocols by which benchmarks' own scripts ask a judge that answers "1" or "2", and what they count.

A protocol gives each comparison of two responses a score: 1 where the judge is right, 0 where it is wrong,
None where the comparison counts for nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from basereward.evaluation.benchmarks.benchmark import Item
    from basereward.paradigms.verdicts import Verdicts

Judged: TypeAlias = "Mapping[int, Verdicts]"
"""The verdicts on each comparison, by its number in the benchmark."""

JudgeProtocol: TypeAlias = "Callable[[Sequence[Item], Judged], list[float | None]]"

FIRST, SECOND = 1, 2
SEED = 123
"""Of the verdicts that Multimodal RewardBench's script draws."""


def better_first(items: Sequence[Item], judged: Judged) -> list[float | None]:
    """Return R1-Reward's scores: the better response is always shown first, and a text without a verdict is
    one for the second; of several answers the more frequent verdict counts (`inference/` of its repository).
    """
    scores: list[float | None] = []
    for number, item in enumerate(items):
        votes = _votes(judged, number, _better_first(item))
        right = sum(vote == FIRST for vote in votes)
        scores.append(float(2 * right > len(votes)) if votes else None)
    return scores


def as_listed(items: Sequence[Item], judged: Judged) -> list[float | None]:
    """Return Multimodal RewardBench's scores: responses are shown in the file's order, and a text without a
    verdict gets a random one, with a seed (its `scripts/`).
    """
    chance = random.Random(SEED)
    scores: list[float | None] = []
    for number, item in enumerate(items):
        votes = _votes(judged, number, (0, 1))
        if not votes:
            scores.append(None)
            continue
        verdict = votes[0] or chance.choice((FIRST, SECOND))
        scores.append(float((verdict == FIRST) == (item.ranks[0] < item.ranks[1])))
    return scores


def as_listed_or_wrong(items: Sequence[Item], judged: Judged) -> list[float | None]:
    """Return Omni-RewardBench's scores: responses are shown in the file's order, and a text without a verdict
    is wrong (its `evaluation_experiments/run_exp.py`); rows that the data calls a tie are left out.
    """
    scores: list[float | None] = []
    for number, item in enumerate(items):
        votes = _votes(judged, number, (0, 1))
        if not votes or item.ranks[0] == item.ranks[1]:
            scores.append(None)
            continue
        better = FIRST if item.ranks[0] < item.ranks[1] else SECOND
        scores.append(float(votes[0] == better))
    return scores


def by_majority(items: Sequence[Item], judged: Judged) -> list[float | None]:
    """Return VL-RewardBench's scores: each of K answers is to responses in a random order, and the majority
    counts; a comparison with a text without a verdict, or with as many answers right as wrong, counts for
    nothing (its `cal.py`).
    """
    scores: list[float | None] = []
    for number, item in enumerate(items):
        first = _better_first(item)
        orders = (first, first[::-1])
        votes = []
        for run in range(min(len(_votes(judged, number, order)) for order in orders)):
            order = random.Random(f"order of comparison {number} in run {run}").choice(orders)
            verdict = judged[number][order][run]
            votes.append(None if verdict is None else (verdict == FIRST) == (order == first))
        right = sum(vote is True for vote in votes)
        is_left_out = not votes or None in votes or 2 * right == len(votes)
        scores.append(None if is_left_out else float(2 * right > len(votes)))
    return scores


OFFICIAL: Final = "official judge protocol"
R1_REWARD: Final = "R1-Reward's judge protocol"


def _better_first(item: Item) -> tuple[int, int]:
    return (0, 1) if item.ranks[0] < item.ranks[1] else (1, 0)


def _votes(judged: Judged, number: int, order: tuple[int, int]) -> Sequence[int | None]:
    return judged.get(number, {}).get(order, ())
