"""Rankings taken apart: as pairs of their own, or as one pair each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.data.ranking_pairs import RankingPairs
from basereward.errors import DataError


class Rows(Dataset):
    """Rankings, a tie, and a bad row."""

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield them."""
        judgements = [
            {"first": 0, "second": 2, "text": "a over c"},
            {"first": 2, "second": 1, "text": "c under b"},
        ]
        meta = {"critiques": ["A", None, "C"], "judgements": judgements, "part": "x"}
        yield Comparison("q", ["a", "b", "c"], ratings=[3, 2, 1], id="r", source="s", weight=0.5, meta=meta)
        yield DataError("is bad", file="f", line=2)
        yield Comparison("q2", ["a", "b", "c", "d"], ranks=[0, 0, 1, 1], id="p")
        yield Comparison("q3", ["a", "b"], ranks=[1, 1], id="tie")
        yield Comparison("q4", ["a", "b"], ranks=[1, 0], id="pair")

    @property
    def num_rows(self) -> int:
        """As many as `read` yields."""
        return 5


def read(pairs: Literal["each", "one"]) -> list[Comparison]:
    """Return what can be read."""
    dataset = RankingPairs(Rows(), pairs)
    rows = list(dataset)
    assert [error.reason for error in dataset.rejected] == ["is bad"]
    assert dataset.count() == len(rows) + 1
    return rows


def test_each_pair_that_is_no_tie_is_a_row() -> None:
    rows = read("each")
    assert [row.id for row in rows] == [
        *("r#0-1", "r#0-2", "r#1-2"),
        *("p#0-2", "p#0-3", "p#1-2", "p#1-3"),
        *("tie", "pair"),
    ]
    first, second, third = rows[:3]
    assert (first.responses, first.ratings, first.ranks) == (("a", "b"), (3.0, 2.0), (0.0, 1.0))
    assert (second.source, second.weight) == ("s", 0.5)
    # What is said of the responses goes with them, under their new numbers.
    assert first.meta == {"critiques": ["A", None], "judgements": [], "part": "x"}
    assert second.meta["judgements"] == [{"first": 0, "second": 1, "text": "a over c"}]
    assert third.meta["judgements"] == [{"first": 1, "second": 0, "text": "c under b"}]
    assert third.meta["critiques"] == [None, "C"]


def test_one_pair_a_ranking_is_drawn_the_same_each_time_from_all_of_them() -> None:
    rows = read("one")
    assert [row.id.partition("#")[0] for row in rows] == ["r", "p", "tie", "pair"]
    assert all(len(row.responses) == 2 for row in rows)
    assert [row.id for row in read("one")] == [row.id for row in rows]

    class Many(Dataset):
        def read(self) -> Iterator[Comparison]:
            for number in range(600):
                yield Comparison(f"q{number}", list("abcd"), ranks=[0, 1, 2, 3], id=str(number))

    drawn = [row.id.partition("#")[2] for row in RankingPairs(Many(), "one")]
    counts = {pair: drawn.count(pair) for pair in sorted(set(drawn))}
    assert list(counts) == ["0-1", "0-2", "0-3", "1-2", "1-3", "2-3"]
    # Each of six pairs is drawn of 600 about 100 times, with a deviation of sqrt(600 * 1/6 * 5/6) = 9.1.
    assert all(count == pytest.approx(100, abs=5 * 9.2) for count in counts.values())
