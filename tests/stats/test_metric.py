"""Means of unit_scores, averages of them, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basereward.stats.interval import wilson
from basereward.stats.metric import Metric, Score, average, unit_mean


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def of(*unit_scores: float, group: list[int] | None = None, chance: float = 0.5, **more: object) -> Metric:
    groups = list(range(len(unit_scores))) if group is None else group
    return unit_mean(column(*unit_scores), np.array(groups), np.full(len(unit_scores), chance), **more)  # type: ignore[arg-type]


def test_a_share_is_the_mean_credit_with_wilsons_interval() -> None:
    metric = of(1, 1, 1, 0)
    assert (metric.value, metric.chance, metric.num) == (0.75, 0.5, 4)
    # Four independent units are worth three: the spread of groups is taken over K - 1.
    assert metric.interval() == pytest.approx(wilson(0.75, 3))


def test_an_average_weighs_its_measures_and_not_their_units() -> None:
    first, second = of(1, 1, 1, 0), of(0, 1, group=[4, 5])
    # (3/4 + 1/2) / 2, and (3 * 3/4 + 1 * 1/2) / 4
    assert average([first, second]).value == pytest.approx(0.625)
    assert average([first, second], [3, 1]).value == pytest.approx(0.6875)
    assert average([first, second]).num == 6


def test_an_average_of_averages_keeps_the_outer_weights() -> None:
    inner = average([of(1), of(0, group=[1])])
    # (1/2 * 1 + 1/2 * 0) / 2 + 1 / 2
    assert average([inner, of(1, group=[2])]).value == pytest.approx(0.75)


@pytest.mark.parametrize("num_groups", [20, 80])
def test_a_resampled_interval_is_as_wide_as_the_variance_of_groups_says(num_groups: int) -> None:
    rng = np.random.default_rng(1)
    size = 4
    wins = rng.integers(0, 2, num_groups)
    # Each group is all right or all wrong: as good as one unit.
    metric = unit_mean(
        np.repeat(wins, size).astype(np.float64),
        np.repeat(np.arange(num_groups), size),
        np.full(num_groups * size, 0.5),
        method="bootstrap",
    )
    p = wins.mean()
    low, high = metric.interval()
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(p * (1 - p) / num_groups), rel=0.12)


def test_resampling_is_seeded_and_keeps_each_parts_number_of_groups() -> None:
    both = average([of(1, 1, 1, 1), of(0, 0, group=[4, 5])])
    # Units of one part are alike, so that only a draw across parts could move the value.
    assert set(both.resampled()) == {0.5}
    mixed = average([of(1, 0, 1, 0), of(0, 1, group=[4, 5])])
    assert (mixed.resampled() == mixed.resampled()).all()
    assert (mixed.resampled() != mixed.resampled(seed=1)).any()


def test_a_group_of_two_parts_is_drawn_for_both_at_once() -> None:
    both = average([of(1, 0, group=[0, 1]), of(0, 1, group=[0, 1])])
    # Group 0 is right in one part and wrong in the other: the average is 1/2 however often it is drawn.
    assert both.resampled() == pytest.approx(np.full(2000, 0.5))


def test_where_all_units_are_alike_the_number_of_groups_gives_the_interval() -> None:
    metric = of(1, 1, 1, 1, group=[0, 0, 1, 1], method="bootstrap")
    assert metric.interval() == pytest.approx(wilson(1.0, 2))


def test_a_paired_difference_of_the_same_rewards_is_exactly_zero() -> None:
    metric = average([of(1, 0, 1), of(0, 1, group=[3, 4])])
    between = metric.minus(metric)
    assert (between.value, between.interval()) == (0, (0, 0))


def test_a_paired_difference_is_narrower_than_that_of_two_intervals() -> None:
    first = of(*([1] * 60 + [0] * 40))
    second = of(*([1] * 50 + [0] * 50))
    low, high = first.minus(second).interval()
    # Ten units differ, all one way: 0.10 +- 1.96 * sqrt(0.1 * 0.9 / 100) = 0.04 to 0.16.
    assert (low, high) == pytest.approx((0.0412, 0.1588), abs=0.015)


def test_a_difference_needs_the_same_units() -> None:
    with pytest.raises(ValueError, match="^a paired difference needs the same units on both sides$"):
        of(1, 0).minus(of(1))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3)), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_an_interval_holds_the_value_and_lies_between_none_and_all(
    parts: list[list[tuple[float, int]]],
) -> None:
    metrics = [
        of(*(unit_scores for unit_scores, _ in part), group=[10 * number + group for _, group in part])
        for number, part in enumerate(parts)
    ]
    score = Score.of("name", average(metrics))
    assert -1e-6 <= score.low <= score.value + 1e-6
    assert score.value - 1e-6 <= score.high <= 1 + 1e-6


def test_a_score_shows_percent_and_brings_its_baselines() -> None:
    score = Score.of("Acc", of(1, 1, 1, 0), of(1, 0, 0, 0))
    assert str(score) == "75.00 (25.6 to 96.3)"
    found = score.to_dict()
    assert {
        name: found[name] for name in ("value", "num", "unit", "kind", "method", "longer_baseline", "chance")
    } == {
        **{"value": 0.75, "num": 4, "unit": "pairs", "kind": "official", "method": "Wilson"},
        **{"longer_baseline": 0.25, "chance": 0.5},
    }
