"""The pairs of an audit: one of each row, its best response and one of its worst, and what was made of them.

Shapes: K rows that were scored.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.data.formats import comparisons_of
from basereward.errors import DataError
from basereward.evaluation.audit.trials import Rewards, Trial
from basereward.evaluation.scored_pairs import GROUP, PairCollector, ScoredPairs, evaluable_pairs
from basereward.message import Message
from basereward.scoring.ordered import placed

WHOLE = "whole"
"""The trial of a row's pair as it is."""


def sampled(
    comparisons: Iterable[Comparison | Mapping[str, Any]], *, max_rows: int, seed: int
) -> tuple[list[Comparison], list[DataError], int]:
    """Return the pairs of at most `max_rows` rows, rejected rows, and the number of rows that were read.

    All rows are as likely to be drawn (reservoir sampling), and keep their order.
    """
    chance = random.Random(seed)
    kept: list[tuple[int, Comparison]] = []
    rejected: list[DataError] = []
    num_usable = number = 0
    for number, comparison in enumerate(comparisons_of(comparisons), start=1):
        try:
            pair = _pair(comparison, chance)
        except DataError as error:
            rejected.append(placed(error, comparison))
            continue
        num_usable += 1
        if len(kept) < max_rows:
            kept.append((number, pair))
        elif (at := chance.randrange(num_usable)) < max_rows:
            kept[at] = (number, pair)
    if isinstance(comparisons, Dataset):
        rejected = [*comparisons.rejected, *rejected]
        number += len(comparisons.rejected)
    return [pair for _, pair in sorted(kept, key=lambda entry: entry[0])], rejected, number


def _pair(comparison: Comparison, chance: random.Random) -> Comparison:
    """Return the comparison with a best response and a worst one, in their order.

    Raises:
        DataError: When no response is known to be better than another.
    """
    evaluable_pairs(comparison)
    ranks = comparison.ranks
    assert ranks is not None  # it has pairs
    if min(ranks) == max(ranks):
        raise DataError("all responses are tied; an audit takes a better and a worse one", field="ranks")
    best = chance.choice([at for at, rank in enumerate(ranks) if rank == min(ranks)])
    worst = chance.choice([at for at, rank in enumerate(ranks) if rank == max(ranks)])
    both = sorted((best, worst))
    return comparison.replace(
        responses=[comparison.responses[at] for at in both],
        ranks=[float(at == worst) for at in both],
        ratings=None if comparison.ratings is None else [comparison.ratings[at] for at in both],
        meta={GROUP: comparison.meta[GROUP]} if GROUP in comparison.meta else {},
    )


def trial_of(
    rows: Sequence[Comparison],
    row: int,
    name: str,
    *,
    scene: str = WHOLE,
    prompt: tuple[Message, ...] | None = None,
    responses: tuple[str, ...] | None = None,
) -> Trial:
    """Return the trial of a row's pair, with another prompt or other responses."""
    comparison = rows[row]
    return Trial(row, name, scene, prompt or comparison.prompt, responses or comparison.responses)


class Pairs:
    """The rows that were scored as they are, with their rewards in all trials.

    Args:
        rows: Pairs, the rows of the trials.
        rewards: Of the trials.

    Attributes:
        numbers: [K] the rows' numbers.
        is_second: [K] 1 where the better response is the second, else 0.
        group: [K] rows of one number are not independent of each other.

    Raises:
        DataError: When no row was scored, or the model gives both responses of every row one reward.
    """

    def __init__(self, rows: Sequence[Comparison], rewards: Rewards) -> None:
        self.rows, self.rewards = rows, rewards
        self.numbers = [row for row in range(len(rows)) if row in rewards.of_trial[WHOLE]]
        if not self.numbers:
            errors = list(rewards.errors.values())
            raise DataError(
                f"none of {len(rows)} rows could be scored" + (f", the first: {errors[0]}" if errors else "")
            )
        self.is_second = np.array([self._ranks(row)[1] == 0 for row in self.numbers], dtype=np.int64)
        names = [str(rows[row].meta.get(GROUP, f"row {row}")) for row in self.numbers]
        self.group = np.unique(names, return_inverse=True)[1]
        if not self.spread > 0:
            raise DataError("the model gives both responses of every pair one reward; there is no order")

    def _ranks(self, row: int) -> tuple[float, ...]:
        ranks = self.rows[row].ranks
        assert ranks is not None
        return ranks

    def of(self, name: str) -> NDArray[np.float64]:
        """Return the rewards [K, 2] of a trial's two responses, not-a-number where there are none."""
        column = self.rewards.of_trial[name]
        return np.array([column.get(row, (np.nan, np.nan)) for row in self.numbers], dtype=np.float64)

    def margin(self, name: str) -> NDArray[np.float64]:
        """Return the margins [K] of a trial: the better response's reward less that of the worse."""
        rewards = self.of(name)
        return np.where(self.is_second == 1, rewards[:, 1] - rewards[:, 0], rewards[:, 0] - rewards[:, 1])

    @cached_property
    def whole(self) -> NDArray[np.float64]:
        """The margins [K] of the pairs as they are."""
        return self.margin(WHOLE)

    @cached_property
    def spread(self) -> float:
        """The standard deviation of rewards within pairs: half of each squared margin, one degree a pair."""
        return float(np.sqrt((self.whole**2).mean() / 2))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield the better and the worse response of each row [K]."""
        for row, second in zip(self.numbers, self.is_second, strict=True):
            responses = self.rows[row].responses
            yield responses[second], responses[1 - second]

    def scored(self) -> ScoredPairs:
        """Return the pairs as the evaluation's columns."""
        collector = PairCollector()
        for row in self.numbers:
            collector.add(self.rows[row], self.rewards.of_trial[WHOLE][row])
        return collector.collected()
