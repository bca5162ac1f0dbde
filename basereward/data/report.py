"""A data set on one HTML page: a table of its sources, lengths of texts, rows with their images."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.sampling import Reservoir
from basereward.data.statistics import EXACT, GROWTH, Facts, Lengths, Statistics
from basereward.errors import DataError
from basereward.reporting.comparison_card import Card, card_of
from basereward.reporting.html import Header, save_page
from basereward.reporting.tables import Cell, Row, Table

MAX_REJECTED = 50
BAR_HEIGHT = 120  # pixels


@dataclass
class Sample:
    """A uniform sample of each source's rows, and the first rows that were rejected.

    Args:
        num: Rows of each source.
        seed: Of the sampling.
    """

    num: int = 6
    seed: int = 0
    sources: dict[str, Reservoir] = field(default_factory=dict)
    rejected: list[DataError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generator = random.Random(self.seed)

    def add(self, row: Comparison | DataError) -> None:
        """Take a row into account."""
        if isinstance(row, DataError):
            if len(self.rejected) < MAX_REJECTED:
                self.rejected.append(row)
            return
        if row.source not in self.sources:
            self.sources[row.source] = Reservoir(self.num, self._generator)
        self.sources[row.source].add(row)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram.

    Attributes:
        title: Its range of lengths, and the number of texts in it.
        height: Its height in pixels.
        label: The text below it.
    """

    title: str
    height: int
    label: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of lengths on a logarithmic scale, two bars to each doubling."""

    title: str
    bars: Sequence[Bar]

    @classmethod
    def of(cls, title: str, lengths: Lengths) -> Histogram:
        """Return the histogram of lengths."""
        counts: dict[int, int] = {}
        for place, count in lengths.bins.items():
            length = place if place < EXACT else EXACT * math.exp((place - EXACT + 0.5) * GROWTH)
            step = int(2 * math.log2(max(length, 1)))
            counts[step] = counts.get(step, 0) + count
        first, last = min(counts, default=0), max(counts, default=-1)
        bars = []
        for step in range(first, last + 1):
            count = counts.get(step, 0)
            low, high = math.ceil(2 ** (step / 2)), math.ceil(2 ** ((step + 1) / 2)) - 1
            label = f"{low:,}" if step % 4 == 0 or first == last else ""
            height = round(BAR_HEIGHT * count / max(counts.values()))
            bars.append(Bar(f"{low:,} to {high:,}: {count:,}", height, label))
        facts = lengths.to_dict()
        numbers = f"mean {facts['mean']:,.0f}, median {facts['median']:,}, largest {facts['max']:,}"
        return cls(f"{title}: {numbers}", bars)


def source_table(statistics: Statistics) -> Table:
    """Return the table of sources, and of all of them together if there are several.

    N: responses a row. Prompt and response: characters, median and 95th percentile. Longer wins: how often
    the longer response of a pair is preferred.
    """
    titles = ("source", "rows", "images", "N", "pairs", "ties", "prompt", "response", "longer wins")
    rows = [_source_row(name, facts) for name, facts in sorted(statistics.sources.items())]
    if len(rows) != 1:
        rows.append(_source_row("all of them" if rows else "nothing", statistics.total, "total"))
    return Table(titles, rows)


def save_report(path: Path, title: str, statistics: Statistics, sample: Sample) -> None:
    """Write the page; it needs no other file."""
    total = statistics.total
    save_page(
        path,
        "dataset.html",
        Header(
            {"data": title},
            f"{total.num_rows:,}",
            f"rows, {statistics.rejected.total():,} more that can't be used",
        ),
        title=title,
        num_rejected=statistics.rejected.total(),
        sources=source_table(statistics),
        histograms=[
            Histogram.of("Characters of a prompt", total.prompt_characters),
            Histogram.of("Characters of a response", total.response_characters),
        ],
        samples={name: list(map(_card, rows.comparisons)) for name, rows in sorted(sample.sources.items())},
        rejected=list(map(str, sample.rejected)),
    )


def _source_row(name: str, facts: Facts, style: str = "") -> Row:
    bias = facts.length_bias.to_dict()
    share, half = bias["preferred_longer"], bias["half_width"]
    texts = (
        name,
        f"{facts.num_rows:,}",
        f"{facts.num_with_images:,}",
        _spread(facts.responses),
        f"{facts.length_bias.num_pairs:,}",
        f"{facts.num_ties:,}",
        _quantiles(facts.prompt_characters),
        _quantiles(facts.response_characters),
    )
    longer = Cell("–")
    if share is not None and half is not None:
        # Wide enough to be seen, and within 0 to 1.
        bar = (max(0.0, share - max(half, 0.01)), min(1.0, share + max(half, 0.01)))
        longer = Cell(f"{share:.1%} ± {100 * half:.1f}", bar=bar)
    return Row([*map(Cell, texts), longer], style)


def _card(comparison: Comparison) -> Card:
    ranks, ratings = comparison.ranks, comparison.ratings
    places = {rank: place for place, rank in enumerate(sorted(set(ranks or ())), start=1)}
    rows = []
    for number, response in enumerate(comparison.responses):
        rank = "" if ranks is None else str(places[ranks[number]])
        rating = () if ratings is None else (f"{ratings[number]:.3g}",)
        is_best = ranks is not None and len(places) > 1 and rank == "1"
        rows.append(Row.of(rank, *rating, f"{len(response):,}", response, style="best" if is_best else ""))
    titles = ("rank", "chars") if ratings is None else ("rank", "rating", "chars")
    footer = f"{comparison.id} · {comparison.label}" if comparison.place.file else comparison.id
    return card_of(comparison, titles, sorted(rows, key=lambda row: int(row.texts[0] or 0)), footer)


def _spread(responses: Mapping[int, int]) -> str:
    low, high = min(responses, default=0), max(responses, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _quantiles(lengths: Lengths) -> str:
    return f"{lengths.quantile(0.5):,} / {lengths.quantile(0.95):,}"
