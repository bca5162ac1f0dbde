"""Statistics: counts, lengths in flat memory, and how often the longer response wins."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison
from basereward.data.statistics import Lengths, Statistics
from basereward.errors import DataError


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_quantiles_are_exact_to_one_per_cent_and_mean_and_maximum_exact(values: list[int]) -> None:
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    assert lengths.to_dict()["mean"] == pytest.approx(statistics.fmean(values))
    assert lengths.largest == max(values)
    ordered = sorted(values)
    for share in (0.5, 0.95, 1.0):
        exact = ordered[math.ceil(share * len(values) - 1e-9) - 1]
        assert exact <= lengths.quantile(share) + 1
        assert lengths.quantile(share) <= exact * 1.011 + 1


def test_lengths_take_the_same_memory_however_many_there_are() -> None:
    lengths = Lengths()
    for value in range(1, 1_000_000, 7):
        lengths.add(value)
    # 256 exact ones, then ln(1e6 / 256) / ln(1.01) = 832 bins.
    assert len(lengths.bins) <= 256 + 832


def test_rows_are_counted_in_all_and_by_source() -> None:
    rows = [
        Comparison("prompt", ["longer", "no"], ratings=[2, 1], images=[b"x"], source="a"),
        Comparison("prompt", ["no", "longer", "tie"], ranks=[0, 1, 1], source="a"),
        Comparison("pro", ["alone"], source="b"),
        DataError("is empty", field="prompt"),
        DataError("is not JSON"),
    ]
    report = Statistics().add_all(rows).to_dict()
    assert report["rejected"] == {"num_rows": 2, "by_field": {"prompt": 1, "row": 1}}
    assert list(report["sources"]) == ["a", "b"]
    total = report["total"]
    counts = {name: value for name, value in total.items() if name.startswith("num_")}
    assert counts == {
        "num_rows": 3,
        "num_with_images": 1,
        "num_images": 1,
        "num_ranked": 2,
        "num_rated": 1,
        "num_pairs": 3,
        "num_ties": 1,
    }
    assert total["responses"] == {"1": 1, "2": 1, "3": 1}
    assert total["prompt_characters"] == {"mean": 5.0, "median": 6, "p95": 6, "max": 6}
    # The longer response wins in one pair of the first row, and in neither of the two of the second.
    assert total["length_bias"]["preferred_longer"] == pytest.approx(1 / 3)


def test_pairs_of_one_row_make_the_interval_no_narrower() -> None:
    alone, together = Statistics(), Statistics()
    for number in range(100):
        wins = number % 2 == 0
        best, worst = ("long", "no") if wins else ("no", "long")
        alone.add(Comparison("p", [best, worst], ranks=[0, 1]))
        together.add(
            Comparison("p", [best, *(worst + str(other) for other in range(5))], ranks=[0] + [1] * 5)
        )
    half = alone.total.length_bias.to_dict()["half_width"]
    # 1.96 * sqrt(0.5 * 0.5 / 100)
    assert half == pytest.approx(0.098)
    assert together.total.length_bias.to_dict()["half_width"] == pytest.approx(half)


def test_without_a_pair_there_is_no_share() -> None:
    empty = Statistics().to_dict()["total"]["length_bias"]
    assert empty == {"preferred_longer": None, "half_width": None, "num_pairs": 0}
