"""The scale of a rating: named levels with their values, or numbers, and where a rating stands in a text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from basereward.errors import ConfigError
from basereward.media.limits import is_number

NUMBER = re.compile(r"[^\w.+-]*([+-]?\d+(?:\.\d+)?)")
"""A number, behind signs such as "[" or "**"."""


@dataclass(frozen=True)
class RatingScale:
    """The levels of a template of ratings, or the bounds of its numbers.

    Args:
        levels: The names of the levels, the worst first; none where a number is asked for.
        values: The value of each level; ascending.
        bounds: The least and the greatest number, where there are no levels.
        lead: What stands before the rating in an answer, such as "Final Score: ".
        explains: Whether the judge writes an explanation before the lead.
    """

    levels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    lead: str = ""
    explains: bool = False

    @classmethod
    def of(cls, table: dict[str, Any]) -> RatingScale:
        """Return the scale of a template's file.

        Raises:
            ConfigError: When it is none.
        """
        levels, bounds = table.get("levels", []), table.get("bounds", [])
        lead, explains = table.get("lead", ""), table.get("explains", False)
        if bool(levels) == bool(bounds):
            raise ConfigError(
                'a rating needs levels, such as ["bad", "fair", "good"], or bounds, such as [0, 100]'
            )
        if not isinstance(lead, str) or not isinstance(explains, bool) or (explains and not lead.strip()):
            raise ConfigError(
                'lead is the text before a rating, such as "Final Score: ", and explains is true or false; '
                f"one that explains needs a lead; given are {lead!r} and {explains!r}"
            )
        if bounds:
            if not explains:
                raise ConfigError("a number is read in what the judge writes, so bounds need explains = true")
            return cls(bounds=_ascending("bounds", bounds, 2), lead=lead, explains=explains)
        names = levels if isinstance(levels, list) else []
        if len(names) < 2 or not all(isinstance(name, str) and name.strip() for name in names):
            raise ConfigError(f"levels are two names or more, the worst first, not {levels!r:.60}")
        values = _ascending("values", table.get("values", list(range(1, len(names) + 1))), len(names))
        return cls(tuple(names), values, (), lead, explains)

    def beginning_of(self, text: str) -> str | None:
        """Return a text up to where its rating stands: behind its last lead, or at its beginning where the
        scale has none; None where the text has no lead.
        """
        marker = self.lead.strip()
        place = text.rfind(marker) if marker else 0
        return None if place < 0 else text[: place + len(marker)]

    def rating_in(self, text: str) -> float | None:
        """Return the value of the rating that stands in a text; None where there is none."""
        beginning = self.beginning_of(text)
        if beginning is None:
            return None
        rest = text[len(beginning) :]
        if self.bounds:
            match = NUMBER.match(rest)
            value = float(match[1]) if match else math.nan
            return value if self.bounds[0] <= value <= self.bounds[1] else None
        # Longer names first, of which one may begin with another: "very good", "very good indeed".
        for name, value in sorted(zip(self.levels, self.values, strict=True), key=lambda each: -len(each[0])):
            if re.match(rf"[^\w+-]*{re.escape(name)}\b", rest, re.IGNORECASE):
                return value
        return None

    def expected(self, log_probabilities: Sequence[float]) -> float:
        """Return the expected value of a level, of the levels' log-probabilities up to a common summand."""
        highest = max(log_probabilities)
        weights = [math.exp(value - highest) for value in log_probabilities]
        return math.fsum(map(float.__mul__, weights, self.values)) / math.fsum(weights)


def _ascending(name: str, given: Any, count: int) -> tuple[float, ...]:
    numbers = given if isinstance(given, list) and all(map(is_number, given)) else []
    if len(numbers) != count or any(one >= other for one, other in pairwise(numbers)):
        raise ConfigError(f"{name} are {count} ascending numbers, not {given!r:.60}")
    return tuple(map(float, numbers))
