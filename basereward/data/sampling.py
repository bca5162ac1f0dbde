"""Some comparisons of many, each as likely as any other."""

from __future__ import annotations

import random
from collections.abc import Iterable

from basereward.comparison import Comparison


def sample(comparisons: Iterable[Comparison], num: int, seed: int = 0) -> list[Comparison]:
    """Return `num` of the comparisons in their order, or all where there are no more; none is kept besides.

    Args:
        comparisons: Read once.
        num: How many, >= 1.
        seed: Which.

    Raises:
        ValueError: When `num` is below 1.
    """
    if num < 1:
        raise ValueError(f"a sample is of 1 comparison or more, not {num}")
    chance = random.Random(seed)
    kept: list[tuple[int, Comparison]] = []
    for number, comparison in enumerate(comparisons):
        if number < num:
            kept.append((number, comparison))
        elif (place := chance.randint(0, number)) < num:
            kept[place] = (number, comparison)
    return [comparison for _, comparison in sorted(kept, key=lambda entry: entry[0])]
