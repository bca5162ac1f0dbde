"""Sample comparisons uniformly from a stream."""

from __future__ import annotations

import random
from collections.abc import Iterable

from basereward.comparison import Comparison


class Reservoir:
    """A uniform sample of `num` of the comparisons that were added (Vitter's algorithm R)."""

    def __init__(self, num: int, generator: random.Random) -> None:
        self.num = num
        self._generator = generator
        self._num_added = 0
        self._sample: list[tuple[int, Comparison]] = []

    def add(self, comparison: Comparison) -> None:
        """Take a comparison into account."""
        entry = (self._num_added, comparison)
        self._num_added += 1
        if len(self._sample) < self.num:
            self._sample.append(entry)
        elif (slot := self._generator.randrange(self._num_added)) < self.num:
            self._sample[slot] = entry

    @property
    def comparisons(self) -> list[Comparison]:
        """The sample, in the order in which it was added."""
        return [comparison for _, comparison in sorted(self._sample, key=lambda entry: entry[0])]


def sample(comparisons: Iterable[Comparison], num: int, seed: int = 0) -> list[Comparison]:
    """Return `num` of the comparisons in their order, or all where there are no more; none is kept besides.

    Raises:
        ValueError: When `num` is below 1.
    """
    if num < 1:
        raise ValueError(f"a sample is of 1 comparison or more, not {num}")
    reservoir = Reservoir(num, random.Random(seed))
    for comparison in comparisons:
        reservoir.add(comparison)
    return reservoir.comparisons
