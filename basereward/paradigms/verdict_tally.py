"""Rewards of the verdicts on a comparison's pairs, and counts of how reliable these verdicts are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.paradigms.answer_counts import AnswerCounts
from basereward.paradigms.judge_template import JudgeTemplate
from basereward.paradigms.verdicts import (
    Aggregate,
    Reading,
    Verdicts,
    chosen_pairs,
    read_verdict,
    rewards_of,
)

Order: TypeAlias = tuple[int, int]
"""The responses that a question shows first and second."""

NO_VERDICT = "no verdict could be read in what the judge wrote on its pairs"
"""The reason for a comparison without rewards."""


def asked_orders(num_responses: int, max_pairs: int | None) -> tuple[Order, ...]:
    """Return the questions about N responses: each pair that is asked about, in both orders."""
    pairs = chosen_pairs(num_responses, max_pairs)
    return tuple(order for first, second in pairs for order in ((first, second), (second, first)))


def check_settings(
    template: JudgeTemplate,
    *,
    max_pairs: int | None,
    num_votes: int,
    temperature: float,
    max_answer_tokens: int,
) -> None:
    """Refuse settings of a judge of pairs that can't be carried out.

    Raises:
        ValueError: When a number is out of its range.
        ConfigError: When the template's answer needs no votes.
    """
    for name, value in (
        ("max_pairs", max_pairs),
        ("num_votes", num_votes),
        ("max_answer_tokens", max_answer_tokens),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} is a number >= 1, not {value}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is a finite number > 0, not {temperature}")
    if num_votes > 1 and template.answer == "verdict":
        raise ConfigError(
            f"num_votes is {num_votes}, but template {template.name!r} gives its probabilities at once, and "
            'asking again would change nothing; leave out num_votes, or set template = "reasoned"'
        )


class VerdictTally:
    """Makes rewards of verdicts, and counts them.

    Args:
        aggregate: How preferences become rewards, as `verdicts.rewards_of` takes it.
        reading: How texts are read, as `verdicts.read_verdict` takes it.
    """

    def __init__(self, aggregate: Aggregate, reading: Reading) -> None:
        self.aggregate: Aggregate = aggregate
        self.reading: Reading = reading
        self.counts = AnswerCounts()
        self._recorded: dict[int, Verdicts] | None = None

    @property
    def reward_unit(self) -> str:
        """The unit of its rewards; empty for those of Bradley-Terry, which have no bounds."""
        return "win shares, 0 to 1" if self.aggregate == "wins" else ""

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of how reliable the verdicts so far are; see `AnswerCounts.statistics`."""
        return self.counts.statistics

    @contextmanager
    def recording(self) -> Iterator[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts on each comparison, by its `id()`."""
        self._recorded = recorded = dict[int, Verdicts]()
        try:
            yield recorded
        finally:
            self._recorded = None

    def rewards_of_odds(
        self, comparison: Comparison, odds_of: Mapping[Order, float], masses: Iterable[float] = ()
    ) -> list[float]:
        """Count the verdicts on a comparison, and return its rewards [N].

        Args:
            comparison: The comparison.
            odds_of: The log-odds of "1" against "2" of each question.
            masses: The probability of "1" and "2" together, of each question where it is known.
        """
        self.counts.add(len(odds_of), masses=masses)
        self._count_orders(odds_of, 0.0, len(odds_of), sum(odds > 0 for odds in odds_of.values()))
        self._record(comparison, {order: (1 if odds > 0 else 2,) for order, odds in odds_of.items()})
        return self.rewards(len(comparison.responses), odds_of, are_odds=True)

    def rewards_of_texts(
        self, comparison: Comparison, texts_of: Mapping[Order, Sequence[int | str | None]]
    ) -> list[float]:
        """Count the verdicts on a comparison, and return its rewards [N]; not-a-number where none was read.

        Args:
            comparison: The comparison.
            texts_of: The answers to each question, a text or the verdict read in it for each vote; None for
                one that was cut, which is no verdict, whatever it looks like.
        """
        shares: dict[Order, float] = {}
        num_read = num_first = 0
        verdicts = {order: tuple(map(self._verdict, texts)) for order, texts in texts_of.items()}
        for order, votes in verdicts.items():
            read = [verdict for verdict in votes if verdict is not None]
            self.counts.add(len(votes), unreadable=len(votes) - len(read))
            num_read += len(read)
            num_first += read.count(1)
            if read:
                shares[order] = read.count(1) / len(read)
        self._count_orders(shares, 0.5, num_read, num_first)
        self._record(comparison, verdicts)
        return self.rewards(len(comparison.responses), shares, are_odds=False)

    def rewards(
        self, num_responses: int, preference_of: Mapping[Order, float], *, are_odds: bool
    ) -> list[float]:
        """Return the rewards of a comparison, without counting anything.

        Args:
            num_responses: N.
            preference_of: How far the response shown first is preferred, of the questions with an answer.
            are_odds: Whether as log-odds, not as shares of votes.
        """
        preferences: dict[Order, float | None] = {}
        for first, second in preference_of:
            pair = (min(first, second), max(first, second))
            values = [preference_of[pair]] if pair in preference_of else []
            if pair[::-1] in preference_of:
                swapped = preference_of[pair[::-1]]
                values.append(-swapped if are_odds else 1 - swapped)
            mean = sum(values) / len(values)
            preferences[pair] = _sigmoid(mean) if are_odds else mean
        return rewards_of(preferences, num_responses, self.aggregate)

    def _verdict(self, answer: int | str | None) -> int | None:
        return read_verdict(answer, self.reading) if isinstance(answer, str) else answer

    def _count_orders(
        self, preference_of: Mapping[Order, float], middle: float, num_read: int, num_first: int
    ) -> None:
        both = [
            (one - middle) * (preference_of[second, first] - middle) < 0
            for (first, second), one in preference_of.items()
            if first < second and (second, first) in preference_of
        ]
        self.counts.add_orders(num_read, first=num_first, pairs=len(both), alike=sum(both))

    def _record(self, comparison: Comparison, verdicts: Verdicts) -> None:
        if self._recorded is not None:
            self._recorded[id(comparison)] = verdicts


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))
