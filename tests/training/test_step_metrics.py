"""Metric sums and the metrics made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.losses import STATISTICS
from basereward.training.step_metrics import MetricSums


@given(st.lists(st.lists(st.floats(-10, 10), min_size=11, max_size=11), min_size=1, max_size=5))
def test_sums_add_up_in_whichever_order_they_come_but_for_the_extremes(rows: list[list[float]]) -> None:
    metric_sums = MetricSums()
    for row in rows:
        metric_sums.add(row)
    columns = list(zip(*rows, strict=True))
    low, high = 2 + STATISTICS.index("min"), 2 + STATISTICS.index("max")
    for place, column in enumerate(columns):
        expected = min(column) if place == low else max(column) if place == high else sum(column)
        assert metric_sums.sums[place] == pytest.approx(expected)


def test_metrics_are_means_over_pairs() -> None:
    metric_sums = MetricSums()
    # loss * weight, weight, then weight, correct, margin, margin_squared, chosen, rejected, min, max, pairs
    metric_sums.add([2.0, 4.0, 4.0, 1.5, 3.0, 9.0, 5.0, 2.0, -1.0, 4.0, 2.0])
    metric_sums.add([4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 5.0, 2.0])
    assert metric_sums.metrics() == {
        "loss": 6 / 6,
        "accuracy": 2.5 / 4,
        "margin": 4 / 4,
        "reward_chosen": 6 / 4,
        "reward_rejected": 2 / 4,
        "reward_min": -1.0,
        "reward_max": 5.0,
        "num_pairs": 4.0,
    }
