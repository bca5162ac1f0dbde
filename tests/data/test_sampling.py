"""Uniform samples of comparisons."""

from __future__ import annotations

from collections import Counter

import pytest

from basereward import Comparison
from basereward.data.sampling import sample

ROWS = [Comparison("p", ["x", "y"], id=str(number)) for number in range(20)]


def test_a_sample_is_in_order_and_follows_from_the_seed() -> None:
    numbers = [int(row.id) for row in sample(iter(ROWS), 7, seed=3)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 7
    assert numbers == [int(row.id) for row in sample(ROWS, 7, seed=3)]
    assert numbers != [int(row.id) for row in sample(ROWS, 7, seed=4)]


def test_of_fewer_all_are_taken() -> None:
    assert sample(ROWS, 21) == sample(ROWS, 20) == ROWS
    assert sample([], 5) == []


def test_each_is_as_likely() -> None:
    counts = Counter(int(row.id) for seed in range(2000) for row in sample(ROWS, 5, seed))
    # 2,000 draws of 5 out of 20: 500 each, with a deviation of sqrt(2000 * 0.25 * 0.75) = 19; five of them.
    assert set(counts) == set(range(20))
    assert all(abs(count - 500) < 97 for count in counts.values())


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="^a sample is of 1 comparison or more, not 0$"):
        sample(ROWS, 0)
