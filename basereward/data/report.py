"""A data set on one HTML page: a table of its sources, lengths of texts, rows with their images."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.statistics import EXACT, GROWTH, Facts, Lengths, Statistics
from basereward.errors import DataError
from basereward.reporting.comparison_card import STYLE, Line, card, escaped

MAX_REJECTED = 50

OWN_STYLE = """
body { max-width: 80rem; } h2 { margin-top: 2.4rem; }
table.facts td, table.facts th { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid #eee; }
table.facts td:first-child, table.facts th:first-child { text-align: left; }
table.facts tr.total td { font-weight: 600; border-top: 2px solid #999; }
table.facts td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: 13px; color: #555; margin-bottom: .3rem; }
rect.bar { fill: #4a7fb5; } text { font: 11px system-ui, sans-serif; fill: #666; }
.bias { position: relative; display: inline-block; width: 130px; height: 14px; background: #f0f0f0; }
.bias i { position: absolute; top: 0; bottom: 0; background: #4a7fb5; }
.bias b { position: absolute; top: -2px; bottom: -2px; width: 1px; background: #999; left: 50%; }
"""


@dataclass
class Sample:
    """A few rows of each source, all with the same chance, and the first rows that were rejected.

    Args:
        num: Rows of each source.
        seed: Of the choice.
    """

    num: int = 6
    seed: int = 0
    rows: dict[str, list[Comparison]] = field(default_factory=dict)
    rejected: list[DataError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._seen: dict[str, int] = {}

    def add(self, row: Comparison | DataError) -> None:
        """Take a row into account."""
        if isinstance(row, DataError):
            if len(self.rejected) < MAX_REJECTED:
                self.rejected.append(row)
            return
        kept = self.rows.setdefault(row.source, [])
        seen = self._seen[row.source] = self._seen.get(row.source, 0) + 1
        if len(kept) < self.num:
            kept.append(row)
        elif (place := self._chance.randrange(seen)) < self.num:
            kept[place] = row


COLUMNS = (
    "source",
    "rows",
    "images",
    "N",
    "pairs",
    "ties",
    "prompt",
    "response",
    "longer wins",
)
"""Titles of the table. N: responses a row. Prompt and response: characters, median and 95th percentile.
Longer wins: how often the longer response of a pair is preferred."""


def cells(name: str, facts: Facts) -> tuple[str, ...]:
    """Return a line of the table of sources, as texts."""
    bias = facts.length_bias.to_dict()
    share, half = bias["preferred_longer"], bias["half_width"]
    return (
        name,
        f"{facts.num_rows:,}",
        f"{facts.num_with_images:,}",
        _spread(facts.responses),
        f"{facts.length_bias.num_pairs:,}",
        f"{facts.num_ties:,}",
        _middle(facts.prompt_characters),
        _middle(facts.response_characters),
        "–" if share is None or half is None else f"{share:.1%} ± {100 * half:.1f}",
    )


def table_of(statistics: Statistics) -> list[tuple[str, Facts]]:
    """Return the lines of the table: each source, and all together if there are several."""
    lines = sorted(statistics.sources.items())
    return lines if len(lines) == 1 else [*lines, ("all of them" if lines else "nothing", statistics.total)]


def save_page(path: Path, title: str, statistics: Statistics, sample: Sample) -> None:
    """Write the page; it needs no other file."""
    total = statistics.total
    body = [
        f"<h1>{escaped(title)}</h1>",
        f"<p>{total.num_rows:,} rows, {statistics.rejected.total():,} more that can't be used.</p>",
        _table(statistics),
        '<p class="place">Images: rows that have some. N: responses a row. Prompt, response: characters, '
        "median and 95th percentile. Longer wins: how often the longer response of a pair is preferred, with "
        "the 95 % interval; the line marks one half, where length says nothing.</p>",
        "<h2>Lengths</h2><div class=charts>",
        _histogram("Characters of a prompt", total.prompt_characters),
        _histogram("Characters of a response", total.response_characters),
        "</div>",
        *(_rows(name, rows) for name, rows in sorted(sample.rows.items())),
        _rejected(statistics, sample.rejected),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>'
        f"<style>{STYLE}{OWN_STYLE}</style></head>\n<body>" + "\n".join(body) + "\n</body></html>\n"
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _table(statistics: Statistics) -> str:
    lines = []
    several = len(statistics.sources) > 1
    for name, facts in table_of(statistics):
        *texts, bias = cells(name, facts)
        shown = "".join(f"<td>{escaped(text)}</td>" for text in texts)
        look = ' class="total"' if several and facts is statistics.total else ""
        lines.append(f"<tr{look}>{shown}<td>{_bias(facts)} {escaped(bias)}</td></tr>")
    head = "".join(f"<th>{escaped(title)}</th>" for title in COLUMNS)
    return f'<table class="facts"><tr>{head}</tr>{"".join(lines)}</table>'


def _bias(facts: Facts) -> str:
    bias = facts.length_bias.to_dict()
    share, half = bias["preferred_longer"], bias["half_width"]
    if share is None or half is None:
        return ""
    # At least so wide that it can be seen, and within the box.
    half = max(half, 0.01)
    left = 100 * max(0.0, share - half)
    width = min(100.0, 100 * (share + half)) - left
    return f'<span class="bias"><i style="left:{left:.1f}%;width:{width:.1f}%"></i><b></b></span>'


def _histogram(title: str, lengths: Lengths) -> str:
    """Return bars over lengths on a logarithmic scale, two to each doubling."""
    counts: dict[int, int] = {}
    for place, count in lengths.bins.items():
        length = place if place < EXACT else EXACT * math.exp((place - EXACT + 0.5) * GROWTH)
        step = int(2 * math.log2(max(length, 1)))
        counts[step] = counts.get(step, 0) + count
    if not counts:
        return ""
    first, last = min(counts), max(counts)
    width, height, bar = 24 * (last - first + 1), 120, 22
    shapes = []
    for step in range(first, last + 1):
        left, count = 24 * (step - first), counts.get(step, 0)
        size = round(height * count / max(counts.values()))
        low, high = math.ceil(2 ** (step / 2)), math.ceil(2 ** ((step + 1) / 2)) - 1
        shapes.append(
            f'<rect class="bar" x="{left}" y="{height - size}" width="{bar}" height="{size}">'
            f"<title>{low:,} to {high:,}: {count:,}</title></rect>"
        )
        if step % 4 == 0 or first == last:
            shapes.append(f'<text x="{left}" y="{height + 14}">{low:,}</text>')
    facts = lengths.to_dict()
    numbers = f"mean {facts['mean']:,.0f}, median {facts['median']:,}, largest {facts['max']:,}"
    return (
        f"<figure><figcaption>{title}: {numbers}</figcaption>"
        f'<svg width="{width + 24}" height="{height + 20}">{"".join(shapes)}</svg></figure>'
    )


def _rows(name: str, rows: Sequence[Comparison]) -> str:
    return f"<h2>{escaped(name)}: {len(rows)} rows at random</h2>" + "".join(map(_card, rows))


def _card(comparison: Comparison) -> str:
    ranks, ratings = comparison.ranks, comparison.ratings
    places = {rank: place for place, rank in enumerate(sorted(set(ranks or ())), start=1)}
    lines = []
    for number, response in enumerate(comparison.responses):
        rank = "" if ranks is None else str(places[ranks[number]])
        rating = () if ratings is None else (f"{ratings[number]:.3g}",)
        is_best = ranks is not None and len(places) > 1 and rank == "1"
        lines.append(Line((rank, *rating, f"{len(response):,}"), response, "best" if is_best else ""))
    titles = ("rank", "chars") if ratings is None else ("rank", "rating", "chars")
    where = f"{comparison.id} · {comparison.label}" if comparison.place.file else comparison.id
    return card(comparison, titles, sorted(lines, key=lambda line: int(line.numbers[0] or 0)), where)


def _rejected(statistics: Statistics, errors: Sequence[DataError]) -> str:
    if not errors:
        return ""
    lines = "".join(f"<li>{escaped(str(error))}</li>" for error in errors)
    count = statistics.rejected.total()
    shown = f", the first {len(errors)}" if count > len(errors) else ""
    return f"<h2>{count:,} rows that can't be used{shown}</h2><ol>{lines}</ol>"


def _spread(responses: Mapping[int, int]) -> str:
    low, high = min(responses, default=0), max(responses, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _middle(lengths: Lengths) -> str:
    return f"{lengths.quantile(0.5):,} / {lengths.quantile(0.95):,}"
