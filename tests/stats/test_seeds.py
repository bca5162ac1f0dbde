"""Intervals over seeds, paired tests over seeds and units, and Holm's correction, against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from basereward.stats.metric import average, unit_mean
from basereward.stats.seeds import Estimate, Units, difference, holm, t_quantile, t_tail


def units_of(groups: list[int]) -> Units:
    """Return units of a plain mean, in groups."""
    return Units.of(unit_mean(np.zeros(len(groups)), np.array(groups), np.zeros(len(groups))))


def test_an_interval_over_seeds_is_students() -> None:
    found = Estimate.of([0.7, 0.8, 0.9])
    # Deviation 0.1, so an error of 0.1 / sqrt(3) = 0.057735; t for 2 degrees of freedom is 4.302653.
    assert (found.value, found.num) == (pytest.approx(0.8), 3)
    assert found.half == pytest.approx(4.302653 * 0.057735, abs=1e-6)


def test_one_seed_has_no_interval() -> None:
    found = Estimate.of([0.7])
    assert found.value == 0.7
    assert math.isnan(found.half)


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1e7, 1.96)]
)
def test_t_is_that_of_the_tables(freedom: float, t: float) -> None:
    assert t_quantile(freedom) == pytest.approx(t, abs=1e-4)
    assert t_tail(t, freedom) == pytest.approx(0.05, abs=1e-5)


def test_a_difference_counts_chance_in_seeds_and_in_groups() -> None:
    first = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=float)  # [S, U]
    second = np.array([[0, 1, 0, 0], [1, 0, 1, 1]], dtype=float)
    found = difference(units_of([0, 0, 1, 1]), first, second)
    # By seed: 2/4 and 1/4, so 0.375, with variance 0.125^2 + 0.125^2 = 0.03125, halved for the mean of two.
    # By unit, the seeds' mean: 0.5, 0.5, 0.5, 0. Less their mean of 0.375 the two groups pull by
    # (0.125 + 0.125) / 4 and (0.125 - 0.375) / 4, squared and summed 0.0078125, times 2 / (2 - 1).
    by_seed, by_group = 0.03125 / 2, 2 * 0.0078125
    error = math.sqrt(by_seed + by_group)
    freedom = (by_seed + by_group) ** 2 / (by_seed**2 / 1 + by_group**2 / 1)
    assert (by_seed, by_group, freedom) == (0.015625, 0.015625, 2)
    t = 0.375 / error
    assert found.value == pytest.approx(0.375)
    # With two degrees of freedom the two-sided p is 1 - t / sqrt(t^2 + 2).
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2)) == pytest.approx(0.167950, abs=1e-6)
    assert (found.low, found.high) == (
        pytest.approx(0.375 - 4.302653 * error, abs=1e-6),
        pytest.approx(0.375 + 4.302653 * error, abs=1e-6),
    )


def test_with_one_seed_a_difference_counts_chance_in_groups_alone() -> None:
    found = difference(units_of([0, 1, 2, 3]), np.array([[1.0, 1, 1, 0]]), np.array([[0.0, 0, 1, 0]]))
    # Unit by unit 1, 1, 0, 0: the variance of their mean is (4 * 0.25 / 3) / 4 = 1/12, with 3 degrees.
    t = 0.5 / math.sqrt(1 / 12)
    assert (found.value, found.num_seeds) == (0.5, 1)
    assert found.p == pytest.approx(t_tail(t, 3))


def test_equal_cells_do_not_differ() -> None:
    unit_scores = np.array([[1.0, 0, 1], [1, 1, 0]])
    found = difference(units_of([0, 1, 2]), unit_scores, unit_scores)
    assert (found.value, found.low, found.high, found.p, found.is_significant) == (0, 0, 0, 1, False)


def test_holm_corrects_step_by_step() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_mean_of_means_has_the_measures_value_and_parts() -> None:
    first = unit_mean(np.array([1.0, 0, 0, 0]), np.arange(4), np.zeros(4))
    second = unit_mean(np.array([1.0, 1]), np.arange(2), np.zeros(2))
    whole = average([first, second])
    units = Units.of(whole)
    unit_scores = np.concatenate([part.unit_scores for part in whole.parts])
    assert units.value(unit_scores) == pytest.approx((0.25 + 1) / 2) == pytest.approx(whole.value)
    # Within its part each unit of the second is at the mean, so only the first part's four units vary:
    # (0.75, -0.25, -0.25, -0.25) / 8. Units 0 and 1 of both parts are of the same groups; there are 4.
    assert units.variance(unit_scores) == pytest.approx(4 / 3 * (0.75**2 + 3 * 0.25**2) / 64)


def test_the_mean_of_columns_keeps_their_groups_apart() -> None:
    columns = [units_of([0, 1]), units_of([0, 0, 1])]
    whole = Units.average(columns)
    assert whole.group.tolist() == [0, 1, 2, 2, 3]
    assert whole.part.tolist() == [0, 0, 1, 1, 1]
    # Each column counts half: (1/2 * 1 + 1/3 * 2) / 2.
    assert whole.value(np.array([1.0, 0, 1, 1, 0])) == pytest.approx((1 / 2 + 2 / 3) / 2)
