"""Counts of how reliable the answers of one token are, or of the texts in which one is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations


class AnswerCounts:
    """Counts of a judge's answers, of which its report says how reliable they are."""

    def __init__(self) -> None:
        self.answers = 0
        self.unreadable = 0
        self._masses: list[float] = [0.0, 0.0]
        self._orders: Counter[str] = Counter()

    def add(self, num: int, *, unreadable: int = 0, masses: Iterable[float] = ()) -> None:
        """Count answers.

        Args:
            num: How many were asked for.
            unreadable: How many of them are in no form.
            masses: The probability of all allowed answers together, of each where it is known.
        """
        self.answers += num
        self.unreadable += unreadable
        for mass in masses:
            self._masses[0] += mass
            self._masses[1] += 1

    def add_favourites(self, favourites: Sequence[int], shown_first: Sequence[int]) -> None:
        """Count the responses that one comparison's orders have as the best.

        Args:
            favourites: Of each order.
            shown_first: The response with which each order begins.
        """
        pairs = list(combinations(favourites, 2))
        self.add_orders(
            len(favourites),
            first=sum(map(int.__eq__, favourites, shown_first)),
            pairs=len(pairs),
            alike=sum(one == other for one, other in pairs),
        )

    def add_orders(self, asked: int, *, first: int, pairs: int, alike: int) -> None:
        """Count answers to questions that show responses in several orders.

        Args:
            asked: Those that could be read.
            first: Those for the response that was shown first.
            pairs: Pairs of orders of the same responses.
            alike: Those that prefer the same response.
        """
        self._orders.update(asked=asked, first=first, pairs=pairs, alike=alike)

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of the answers so far.

        `answers` counts what was asked, `parse_failure_rate` is the share of these without an answer in its
        form, and `answer_mass` the mean probability of all allowed answers together, where one is to stand.
        Where responses are shown in several orders, `position_consistency` is the share of pairs of orders
        with the same favourite, and `first_preferred` that of orders whose favourite was shown first.
        """
        if not self.answers:
            return {}
        statistics: dict[str, float] = {
            "answers": self.answers,
            "parse_failure_rate": self.unreadable / self.answers,
        }
        total, num = self._masses
        if num:
            statistics["answer_mass"] = total / num
        orders = self._orders
        if orders["pairs"]:
            statistics["position_consistency"] = orders["alike"] / orders["pairs"]
        if orders["asked"]:
            statistics["first_preferred"] = orders["first"] / orders["asked"]
        return statistics
