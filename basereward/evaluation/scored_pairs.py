"""The pairs of scored comparisons as columns of numbers, collected one comparison at a time.

Shapes: P pairs, N responses of one comparison.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from basereward.comparison import Comparison, Pair
from basereward.errors import DataError

GROUP, CATEGORY = "group", "category"
"""Keys of a comparison's `meta` that evaluations read. Comparisons of one group are not independent of each
other, as they share an image or a ranking.
"""


def evaluable_pairs(comparison: Comparison) -> list[Pair]:
    """Return the comparison's pairs, ties included.

    Raises:
        DataError: When it has no pair, for want of ranks or of a second response.
    """
    if len(comparison.responses) < 2:
        raise DataError("there is one response; two are needed to compare", field="responses")
    return comparison.pairs()


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs whose order is known, with the rewards of both responses, as columns.

    Attributes:
        chosen: [P] reward of the better response.
        rejected: [P] reward of the worse response.
        gap: [P] difference of the ratings, NaN where there are none.
        length_difference: [P] characters of the better response less those of the worse.
        length_ratio: [P] characters of the better response over those of the worse.
        group: [P] which group of comparisons, in any numbering; a group is one comparison, or all those with
            the same `group` in their `meta`.
        source: [P] which of `sources`.
        sources: Names of the data sets.
        category: [P] which of `categories`.
        categories: Values of `category` in the comparisons' `meta`; "" where there is none.
        top: [T] of the T comparisons that have a best response and a worse one: 1 if the response with
            the highest reward is a best one, else 0; the mean over those that share that reward.
        top_chance: [T] the same of a random response.
        length_correlation: Pearson's correlation of reward and characters within comparisons; NaN if either
            never varies.
        num_comparisons: All that were added.
        num_label_ties: Pairs that are left out, since their order is not known.
    """

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    gap: NDArray[np.float64]
    length_difference: NDArray[np.float64]
    length_ratio: NDArray[np.float64]
    group: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: tuple[str, ...]
    category: NDArray[np.int64]
    categories: tuple[str, ...]
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
    def unit_scores(self) -> NDArray[np.float64]:
        """[P] 1 where the better response has the higher reward, 0.5 where both have the same, else 0."""
        return unit_scores_of(self.margin)


def unit_scores_of(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 for positive differences, 0 for negative ones, and 0.5 for zero."""
    return (np.sign(difference) + 1) / 2


@dataclass
class PairCollector:
    """Collect scored comparisons one by one as columns of numbers."""

    _columns: dict[str, array[float]] = field(
        default_factory=lambda: {
            name: array("d") for name in ("chosen", "rejected", "gap", "longer", "ratio", "top", "chance")
        }
    )
    _labels: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("q") for name in ("group", "source", "category")}
    )
    _names: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: {} for name in ("group", "source", "category")}
    )
    _products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    _num_comparisons: int = 0
    _num_label_ties: int = 0

    def add(self, comparison: Comparison, rewards: Sequence[float]) -> float | None:
        """Take one comparison with its rewards [N].

        Returns:
            The smallest margin among its pairs, negative where one is wrong; None if all are ties.

        Raises:
            DataError: When the comparison has no ranks.
        """
        pairs = comparison.pairs()
        if len(rewards) != len(comparison.responses):
            raise ValueError(f"{len(rewards)} rewards for {len(comparison.responses)} responses")
        labels = {
            # Negative numbers are comparisons that are a group of their own.
            "group": self._number("group", str(comparison.meta[GROUP]))
            if GROUP in comparison.meta
            else -1 - self._num_comparisons,
            "source": self._number("source", comparison.source),
            "category": self._number("category", str(comparison.meta.get(CATEGORY, ""))),
        }
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
            self._columns["ratio"].append(lengths[pair.chosen] / lengths[pair.rejected])
            for name, label in labels.items():
                self._labels[name].append(label)
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
        labels = {name: np.array(column, dtype=np.int64) for name, column in self._labels.items()}
        both, reward, length = self._products
        return ScoredPairs(
            chosen=columns["chosen"],
            rejected=columns["rejected"],
            gap=columns["gap"],
            length_difference=columns["longer"],
            length_ratio=columns["ratio"],
            **labels,
            sources=tuple(self._names["source"]),
            categories=tuple(self._names["category"]),
            top=columns["top"],
            top_chance=columns["chance"],
            length_correlation=float(both / np.sqrt(reward * length))
            if reward > 0 and length > 0
            else float("nan"),
            num_comparisons=self._num_comparisons,
            num_label_ties=self._num_label_ties,
        )

    def _number(self, label: str, name: str) -> int:
        names = self._names[label]
        return names.setdefault(name, len(names))

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
