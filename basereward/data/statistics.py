"""Statistics of a data set: rows, sources, lengths, ranks, ties, and preference by length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import DataError

EXACT = 256
"""Lengths below are counted each; longer ones in bins of one per cent, so that memory stays flat."""

GROWTH = math.log(1.01)


@dataclass
class Lengths:
    """Lengths of texts in characters, without holding each."""

    num: int = 0
    total: int = 0
    largest: int = 0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, length: int) -> None:
        """Count one text."""
        self.num += 1
        self.total += length
        self.largest = max(self.largest, length)
        self.bins[length if length < EXACT else EXACT + int(math.log(length / EXACT) / GROWTH)] += 1

    def quantile(self, share: float) -> int:
        """Return the length that a share of the texts doesn't exceed, exact to one per cent; 0 of none."""
        left = share * self.num
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 1e-9:
                upper = place if place < EXACT else EXACT * math.exp((place - EXACT + 1) * GROWTH)
                return min(int(upper), self.largest)
        return self.largest

    def to_dict(self) -> dict[str, float]:
        """Return mean, median, 95th percentile and largest."""
        return {
            "mean": self.total / self.num if self.num else 0.0,
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "max": self.largest,
        }


@dataclass
class LengthBias:
    """The share of pairs whose preferred response is the longer one; equally long ones count as half.

    The interval takes the pairs of one row as one observation of several, since they share responses: with c
    the longer ones of a row's m pairs and p the share, its variance is sum((c - p m)^2) / sum(m)^2.
    """

    num_pairs: int = 0
    longer: float = 0.0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of c * c, c * m and m * m over rows

    def add(self, comparison: Comparison) -> None:
        """Count the pairs of a comparison that has ranks; ties are left out."""
        lengths = [len(response) for response in comparison.responses]
        pairs = [pair for pair in comparison.pairs() if not pair.tie]
        differences = [lengths[pair.chosen] - lengths[pair.rejected] for pair in pairs]
        longer = sum(0.5 if not difference else float(difference > 0) for difference in differences)
        count = len(pairs)
        self.num_pairs += count
        self.longer += longer
        squares, products, counts = self.sums
        self.sums = (squares + longer * longer, products + longer * count, counts + count * count)

    def to_dict(self) -> dict[str, float | None]:
        """Return the share, half the width of its 95 % interval, and the pairs; None where there is none."""
        if not self.num_pairs:
            return {"preferred_longer": None, "half_width": None, "num_pairs": 0}
        share = self.longer / self.num_pairs
        squares, products, counts = self.sums
        variance = max(0.0, squares - 2 * share * products + share * share * counts) / self.num_pairs**2
        half_width = 1.96 * math.sqrt(variance)
        return {"preferred_longer": share, "half_width": half_width, "num_pairs": self.num_pairs}


@dataclass
class Facts:
    """Counts over the rows of one source."""

    num_rows: int = 0
    num_with_images: int = 0
    num_images: int = 0
    num_ranked: int = 0
    num_rated: int = 0
    num_ties: int = 0
    responses: Counter[int] = field(default_factory=Counter)
    prompt_characters: Lengths = field(default_factory=Lengths)
    response_characters: Lengths = field(default_factory=Lengths)
    length_bias: LengthBias = field(default_factory=LengthBias)

    def add(self, comparison: Comparison) -> None:
        """Count one comparison."""
        self.num_rows += 1
        self.num_with_images += bool(comparison.images)
        self.num_images += len(comparison.images)
        self.responses[len(comparison.responses)] += 1
        self.prompt_characters.add(sum(len(message.text) for message in comparison.prompt))
        for response in comparison.responses:
            self.response_characters.add(len(response))
        if comparison.ranks is None:
            return
        self.num_ranked += 1
        self.num_rated += comparison.ratings is not None
        self.num_ties += sum(count * (count - 1) // 2 for count in Counter(comparison.ranks).values())
        self.length_bias.add(comparison)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a report has them."""
        return {
            "num_rows": self.num_rows,
            "num_with_images": self.num_with_images,
            "num_images": self.num_images,
            "num_ranked": self.num_ranked,
            "num_rated": self.num_rated,
            "num_pairs": self.length_bias.num_pairs,
            "num_ties": self.num_ties,
            "responses": {str(number): self.responses[number] for number in sorted(self.responses)},
            "prompt_characters": self.prompt_characters.to_dict(),
            "response_characters": self.response_characters.to_dict(),
            "length_bias": self.length_bias.to_dict(),
        }


@dataclass
class Statistics:
    """Statistics of the rows of one or several data sets, in all and by source.

    Attributes:
        total: Of all rows.
        sources: Of the rows of each source.
        rejected: Rows that can't be used, counted by the field at fault; "row" where no field is.
    """

    total: Facts = field(default_factory=Facts)
    sources: dict[str, Facts] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, row: Comparison | DataError) -> None:
        """Count one row."""
        if isinstance(row, DataError):
            self.rejected[row.field or "row"] += 1
            return
        self.total.add(row)
        self.sources.setdefault(row.source, Facts()).add(row)

    def add_all(self, rows: Iterable[Comparison | DataError]) -> Statistics:
        """Count rows, and return these statistics."""
        for row in rows:
            self.add(row)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "total": self.total.to_dict(),
            "sources": {name: self.sources[name].to_dict() for name in sorted(self.sources)},
            "rejected": {"num_rows": self.rejected.total(), "by_field": dict(self.rejected.most_common())},
        }
