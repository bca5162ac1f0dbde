"""Questions to a writer that are no comparisons of two: ratings, rubrics, and the best of all.

They are those of the paradigms `pointwise` and `listwise`, with the same rewards and counts.

Shapes: N responses, M items of a rubric, 1 without one, K levels, R orders.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Mapping, Sequence

from basereward.comparison import Comparison
from basereward.paradigms.answer_counts import AnswerCounts
from basereward.paradigms.critiquing import given_critiques
from basereward.paradigms.judge_template import LABELS, JudgeTemplate
from basereward.paradigms.listwise import can_show, shown_orders
from basereward.paradigms.pointwise import NO_RATING
from basereward.paradigms.rubric import Item, rubric_of, shares
from basereward.writers.request import Completion, Request

LETTER = re.compile(r"\W*([A-Z])\b")

TOKENS = 16
"""The longest answer to a question for one token, of a writer that gives no log-probabilities."""

NO_CHOICE = "no choice could be read in what the judge wrote on its responses"
"""The reason for a comparison without rewards."""


class SingleAnswers(abc.ABC):
    """Base of questions about a comparison that are no verdicts on two, and of the rewards that follow.

    Args:
        template: The judge template.
        max_tokens: The longest text, where the judge writes one.
    """

    reason: str
    """Why a comparison may have no rewards."""

    def __init__(self, template: JudgeTemplate, max_tokens: int) -> None:
        self.template = template
        self.max_tokens = max_tokens
        self.counts = AnswerCounts()
        self.num_by_text = 0

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of how reliable the answers are; see `AnswerCounts.statistics`."""
        by_text = {"judged_by_text": self.num_by_text} if self.num_by_text else {}
        return {**self.counts.statistics, **by_text}

    def takes(self, num_responses: int) -> bool:
        """Tell whether a comparison of so many responses can be asked about."""
        return True

    @abc.abstractmethod
    def requests(self, comparison: Comparison) -> list[Request]:
        """Return the questions about a comparison.

        Raises:
            DataError: When it can't be asked about.
        """

    @abc.abstractmethod
    def rewards(self, comparison: Comparison, answers: Sequence[Completion]) -> list[float]:
        """Count the answers, and return the rewards [N]; not-a-number where one can't be read."""


class SingleRatings(SingleAnswers):
    """A level for each response, or for each item of a rubric about it."""

    reason = NO_RATING

    def requests(self, comparison: Comparison) -> list[Request]:
        """Return N M questions, or those about responses that have no explanation yet."""
        scale = self.template.scale
        assert scale is not None
        items: Sequence[str | None] = [item.ask for item in self._items(comparison)] or [None]
        critiques = given_critiques(comparison) if scale.explains else [None] * len(comparison.responses)
        return [
            Request(
                self.template.messages(comparison.prompt, [response], item),
                beginning="" if scale.explains else scale.lead.lstrip(),
                max_tokens=self.max_tokens if scale.explains else TOKENS,
                choices=() if scale.explains else scale.levels,
                group=id(comparison),
            )
            for response, critique in zip(comparison.responses, critiques, strict=True)
            if critique is None
            for item in items
        ]

    def rewards(self, comparison: Comparison, answers: Sequence[Completion]) -> list[float]:
        """Return expected levels by log-probabilities, where the writer gives them, or those in its texts."""
        scale = self.template.scale
        assert scale is not None
        if not scale.explains and all(each.log_probabilities for each in answers):
            by_level = [[each.log_probabilities[level] for level in scale.levels] for each in answers]
            values = [scale.expected(each) for each in by_level]
            self.counts.add(len(values), masses=[math.fsum(map(math.exp, each)) for each in by_level])
        else:
            texts = [each.text for each in answers]
            if scale.explains:
                new = iter(texts)
                texts = [next(new) if text is None else text for text in given_critiques(comparison)]
            read = [scale.rating_in(text) for text in texts]
            self.counts.add(len(read), unreadable=read.count(None))
            self.num_by_text += 1
            values = [math.nan if value is None else value for value in read]
        weights = shares(self._items(comparison))
        return [
            math.fsum(weight * value for weight, value in zip(weights, values[first:], strict=False))
            for first in range(0, len(values), len(weights))
        ]

    def _items(self, comparison: Comparison) -> Sequence[Item]:
        return rubric_of(comparison, self.template.items) if self.template.answer == "rubric" else ()


class SingleChoices(SingleAnswers):
    """The best of all responses, in rotated orders.

    Args:
        template: The judge template.
        max_rotations: Orders that are asked about in a comparison; None for N.
    """

    reason = NO_CHOICE

    def __init__(self, template: JudgeTemplate, max_rotations: int | None) -> None:
        super().__init__(template, TOKENS)
        self.max_rotations = max_rotations

    def takes(self, num_responses: int) -> bool:
        """Tell whether there are letters for so many responses, and two to compare."""
        return can_show(num_responses)

    def requests(self, comparison: Comparison) -> list[Request]:
        """Return a question for each order."""
        return [
            Request(
                self.template.messages(comparison.prompt, [comparison.responses[number] for number in order]),
                max_tokens=self.max_tokens,
                choices=LABELS[: len(order)],
                group=id(comparison),
            )
            for order in shown_orders(comparison, self.max_rotations)
        ]

    def rewards(self, comparison: Comparison, answers: Sequence[Completion]) -> list[float]:
        """Return mean log-probabilities, where the writer gives them, or the shares of orders by texts."""
        orders = shown_orders(comparison, self.max_rotations)
        labels = LABELS[: len(orders[0])]
        if all(each.log_probabilities for each in answers):
            likelihoods = [[each.log_probabilities[label] for label in labels] for each in answers]
            masses = [math.fsum(map(math.exp, each)) for each in likelihoods]
            self.counts.add(len(answers), masses=masses)
            votes = [
                [value - math.log(mass) for value in each]
                for each, mass in zip(likelihoods, masses, strict=True)
            ]
        else:
            self.num_by_text += 1
            letters = [match[1] if (match := LETTER.match(each.text)) else "" for each in answers]
            votes = [[float(label == letter) for label in labels] for letter in letters if letter in labels]
            orders = [order for order, letter in zip(orders, letters, strict=True) if letter in labels]
            self.counts.add(len(answers), unreadable=len(answers) - len(votes))
        if not votes:
            return [math.nan] * len(labels)
        places = [order[vote.index(max(vote))] for order, vote in zip(orders, votes, strict=True)]
        self.counts.add_favourites(places, [order[0] for order in orders])
        return [
            math.fsum(vote[order.index(number)] for order, vote in zip(orders, votes, strict=True))
            / len(votes)
            for number in range(len(labels))
        ]
