"""The pairs of scored comparisons as columns of numbers, collected one comparison at a time.

Letters: P pairs, K comparisons, N responses of one comparison.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from basereward.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from basereward.comparison import Comparison, Pair


def pairs_to_judge(comparison: Comparison) -> list[Pair]:
    """Return the comparison's pairs, ties included.

    Raises:
        DataError: When it has no pair, for want of ranks or of a second response.
    """
    if len(comparison.responses) < 2:
        raise DataError("there is one response; two are needed to compare", field="responses")
    return comparison.pairs()


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs whose order is known, and the rewards of both sides; a column for each thing known.

    Attributes:
        chosen: [P] reward of the better response.
        rejected: [P] reward of the worse response.
        gap: [P] difference of the ratings, NaN where there are none.
        longer: [P] how many characters the better response is longer than the worse.
        group: [P] which comparison, 0 to K - 1.
        source: [P] which of `sources`.
        sources: Names of the data sets.
        top: [T] of the T comparisons that have a best response and a worse one: the credit of the response
            with the highest reward, 1 if it is a best one; the mean credit of those that share that reward.
        top_chance: [T] the credit of a response taken blindly.
        length_correlation: Pearson's correlation of reward and characters within comparisons; NaN if either
            never varies.
        num_comparisons: All that were added.
        num_label_ties: Pairs that are left out, since their order is not known.
    """

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    gap: NDArray[np.float64]
    longer: NDArray[np.float64]
    group: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: tuple[str, ...]
    top: NDArray[np.float64]
    top_chance: NDArray[np.float64]
    length_correlation: float
    num_comparisons: int
    num_label_ties: int

    @property
    def margin(self) -> NDArray[np.float64]:
        """[P] reward of the better response less that of the worse."""
        return self.chosen - self.rejected

    @property
    def credit(self) -> NDArray[np.float64]:
        """[P] 1 where the better response has the higher reward, 0.5 where both have the same, else 0."""
        return credit_of(self.margin)


def credit_of(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 for differences above nought, 0 for those below, and 0.5 for nought."""
    return (np.sign(difference) + 1) / 2


@dataclass
class PairCollector:
    """Takes scored comparisons one by one and keeps some numbers of each."""

    _columns: dict[str, array[float]] = field(
        default_factory=lambda: {
            name: array("d") for name in ("chosen", "rejected", "gap", "longer", "top", "chance")
        }
    )
    _group: array[int] = field(default_factory=lambda: array("q"))
    _source: array[int] = field(default_factory=lambda: array("q"))
    _sources: dict[str, int] = field(default_factory=dict)
    _products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    _num_comparisons: int = 0
    _num_label_ties: int = 0

    def add(self, comparison: Comparison, rewards: Sequence[float]) -> float | None:
        """Take one comparison with its rewards [N].

        Returns:
            The smallest margin among its pairs, below nought where one is wrong; None if all are ties.

        Raises:
            DataError: When the comparison has no pairs.
        """
        pairs = pairs_to_judge(comparison)
        if len(rewards) != len(comparison.responses):
            raise ValueError(f"{len(rewards)} rewards for {len(comparison.responses)} responses")
        source = self._sources.setdefault(comparison.source, len(self._sources))
        lengths = [len(response) for response in comparison.responses]
        smallest = None
        for pair in pairs:
            if pair.tie:
                self._num_label_ties += 1
                continue
            better, worse = rewards[pair.chosen], rewards[pair.rejected]
            self._columns["chosen"].append(better)
            self._columns["rejected"].append(worse)
            self._columns["gap"].append(float("nan") if pair.margin is None else pair.margin)
            self._columns["longer"].append(lengths[pair.chosen] - lengths[pair.rejected])
            self._group.append(self._num_comparisons)
            self._source.append(source)
            smallest = better - worse if smallest is None else min(smallest, better - worse)
        self._num_comparisons += 1
        if smallest is not None:
            self._add_top(comparison, rewards)
        reward, length = _centred(rewards), _centred(lengths)
        self._products += (reward @ length, reward @ reward, length @ length)
        return smallest

    def collected(self) -> ScoredPairs:
        """Return all that was taken, as columns."""
        columns = {name: np.array(column, dtype=np.float64) for name, column in self._columns.items()}
        both, reward, length = self._products
        return ScoredPairs(
            chosen=columns["chosen"],
            rejected=columns["rejected"],
            gap=columns["gap"],
            longer=columns["longer"],
            group=np.array(self._group, dtype=np.int64),
            source=np.array(self._source, dtype=np.int64),
            sources=tuple(self._sources),
            top=columns["top"],
            top_chance=columns["chance"],
            length_correlation=float(both / np.sqrt(reward * length))
            if reward > 0 and length > 0
            else float("nan"),
            num_comparisons=self._num_comparisons,
            num_label_ties=self._num_label_ties,
        )

    def _add_top(self, comparison: Comparison, rewards: Sequence[float]) -> None:
        ranks = comparison.ranks
        assert ranks is not None  # it has pairs
        is_best = [rank == min(ranks) for rank in ranks]
        first = [best for best, reward in zip(is_best, rewards, strict=True) if reward == max(rewards)]
        self._columns["top"].append(sum(first) / len(first))
        self._columns["chance"].append(sum(is_best) / len(is_best))


def _centred(values: Sequence[float]) -> NDArray[np.float64]:
    column = np.array(values, dtype=np.float64)
    return np.asarray(column - column.mean())
