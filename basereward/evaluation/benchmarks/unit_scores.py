"""Per-pair and per-group accuracy, with the accuracy of random rewards.

Shapes: K comparisons, P pairs, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.stats.metric import Kind, Metric, unit_mean

MAX_COUNTED = 12
"""Orders of up to so many responses are counted; those of larger groups are sampled."""

NUM_DRAWS = 10_000


def pair_accuracy(
    scored: Scored,
    where: NDArray[np.bool_] | None = None,  # [K]
    *,
    kind: Kind = "official",
    equal: float | None = None,
) -> Metric:
    """Return the share of pairs whose better response has the higher reward.

    Args:
        scored: The comparisons.
        where: Those to count; None for all.
        kind: The metric's kind.
        equal: The unit score of a pair of equal rewards; None for that of the comparisons.
    """
    equal = scored.equal if equal is None else equal
    item, margin = scored.pairs.item, scored.pairs.margin
    if where is not None:
        item, margin = item[where[item]], margin[where[item]]
    unit_scores = np.where(margin == 0, equal, margin > 0).astype(np.float64)
    return unit_mean(unit_scores, scored.group[item], np.full(len(unit_scores), 0.5), kind=kind)


def by_category(scored: Scored, *, equal: float | None = None) -> dict[str, Metric]:
    """Return the pair accuracy of each category that is there."""
    return {
        name: pair_accuracy(scored, scored.of_category(name), kind="category", equal=equal)
        for name in scored.categories
    }


def group_accuracy(
    scored: Scored,
    where: NDArray[np.bool_] | None = None,  # [K]
    *,
    kind: Kind = "official",
) -> Metric:
    """Return the share of groups all of whose pairs have the higher reward on the better side.

    Chance is the expected share where each distinct response has a random reward. It is more than that of a
    coin for each pair, since pairs that share a response are not independent.

    Args:
        scored: The comparisons.
        where: Those to count; None for all.
        kind: The metric's kind.
    """
    pairs = scored.pairs
    is_in = np.ones(len(pairs.item), dtype=bool) if where is None else where[pairs.item]
    group, member = np.unique(scored.group[pairs.item[is_in]], return_inverse=True)
    unit_scores = (np.bincount(member, weights=pairs.margin[is_in] <= 0) == 0).astype(np.float64)
    orders: list[list[tuple[int, int]]] = [[] for _ in group]
    for place, item, better, worse in zip(
        member, pairs.item[is_in], pairs.better[is_in], pairs.worse[is_in], strict=True
    ):
        texts = scored.items[item].texts
        orders[place].append((texts[better], texts[worse]))
    chance = np.array([chance_of_order(order) for order in orders])
    return unit_mean(unit_scores, group, chance, unit="groups", kind=kind, method="bootstrap")


def chance_of_order(pairs: Iterable[tuple[int, int]]) -> float:
    """Return how probable it is that random rewards put each pair's first response above its second.

    It is the share of the orders of all responses that agree with the pairs: counted for up to `MAX_COUNTED`
    responses, for more the share of 10,000 seeded draws.

    Args:
        pairs: Better and worse response, each named by a number.
    """
    pairs = list(pairs)
    # Numbered as they come, since the numbers of texts differ from process to process.
    names = dict.fromkeys(name for pair in pairs for name in pair)
    place = {name: number for number, name in enumerate(names)}
    better = [place[first] for first, _ in pairs]
    worse = [place[second] for _, second in pairs]
    if len(names) > MAX_COUNTED:
        rewards = np.random.default_rng(0).random((NUM_DRAWS, len(names)))
        return float((rewards[:, better] > rewards[:, worse]).all(axis=1).mean())
    above = [0] * len(names)  # bits of the responses that must come before each
    for first, second in zip(better, worse, strict=True):
        above[second] |= 1 << first
    ways = [1] + [0] * ((1 << len(names)) - 1)  # orders of each set of responses, from the best down
    for chosen in range(len(ways)):
        for number in range(len(names)) if ways[chosen] else ():
            if not chosen >> number & 1 and above[number] & chosen == above[number]:
                ways[chosen | 1 << number] += ways[chosen]
    return ways[-1] / math.factorial(len(names))
