"""Rubrics: yes-or-no questions about a response, each with a weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.media.limits import is_number

KEY = "rubric"
"""The key of a comparison's `meta` for a rubric of its own."""


LINE = re.compile(r"\s*(?:[-*]|\d+[.)])\s*\[\s*([+-]?\d+(?:\.\d+)?)\s*\]\s*(\S.*)")
"""A line of a rubric that a judge wrote: "- [2] Does the response name the animal?"."""


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


def rubric_of(comparison: Comparison, items: Sequence[Item] = ()) -> Sequence[Item]:
    """Return the items of a comparison's own rubric, or those of a template.

    Raises:
        DataError: When it is not in its form, or there are none.
    """
    entries = comparison.meta.get(KEY)
    if entries is None and items:
        return items
    rubric = items_of(entries)
    if rubric is None:
        raise DataError(f"a rubric is {FORM}, not {entries!r:.80}", field=f"meta.{KEY}")
    return rubric


def written_rubric(text: str) -> list[dict[str, Any]] | None:
    """Return the items that a judge wrote, a line each, in the form of `meta.rubric`; None without any."""
    entries = [
        {"ask": match[2].strip(), "weight": float(match[1])}
        for line in text.splitlines()
        if (match := LINE.match(line)) and float(match[1])
    ]
    return None if items_of(entries) is None else entries


def shares(items: Sequence[Item]) -> list[float]:
    """Return the share of the reward that yes to each item adds: its weight over the sum of those above 0.

    So the reward is 1 where all that is good is there, and nothing that is bad. Without items it is that of
    a single answer.
    """
    total = sum(item.weight for item in items if item.weight > 0)
    return [item.weight / total for item in items] or [1.0]
