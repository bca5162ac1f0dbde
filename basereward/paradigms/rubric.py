"""Rubrics: yes-or-no questions about a response, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.media.limits import is_number

KEY = "rubric"
"""The key of a comparison's `meta` for a rubric of its own."""


class Item(NamedTuple):
    """A question that is answered yes or no.

    Args:
        ask: The question.
        weight: How much yes counts; below 0 where yes is bad.
    """

    ask: str
    weight: float = 1.0


def items_of(entries: Any) -> tuple[Item, ...] | None:
    """Return the items of a list of texts, or of {"ask": text, "weight": number}; None where it is none."""
    items = []
    for entry in entries if isinstance(entries, Sequence) and not isinstance(entries, str) else [None]:
        table = {"ask": entry} if isinstance(entry, str) else entry
        if not isinstance(table, dict) or not {"ask"} <= set(table) <= {"ask", "weight"}:
            return None
        ask, weight = table["ask"], table.get("weight", 1.0)
        if not isinstance(ask, str) or not ask.strip() or not is_number(weight) or not weight:
            return None
        items.append(Item(ask, float(weight)))
    return tuple(items) if any(item.weight > 0 for item in items) else None


FORM = 'a list of {"ask": "Is it true?", "weight": 2}, with a weight above 0 among them'
"""The form of a rubric, for messages."""


def given_rubric(comparison: Comparison) -> tuple[Item, ...]:
    """Return the items of a comparison's own rubric; none where it has none.

    Raises:
        DataError: When it is not in its form.
    """
    entries = comparison.meta.get(KEY)
    if entries is None:
        return ()
    items = items_of(entries)
    if items is None:
        raise DataError(f"a rubric is {FORM}, not {entries!r:.80}", field=f"meta.{KEY}")
    return items


def shares(items: Sequence[Item]) -> list[float]:
    """Return what yes to each item adds to the reward: its weight over the sum of those above 0.

    So the reward is 1 where all that is good is there, and nothing that is bad. Without items it is that of
    a single answer.
    """
    total = sum(item.weight for item in items if item.weight > 0)
    return [item.weight / total for item in items] or [1.0]
