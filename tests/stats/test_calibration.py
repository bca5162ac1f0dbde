"""Temperatures, and the probabilities that rewards are over them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from basereward.stats.calibration import Calibration, temperature_of


def draws(seed: int, num: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=num)


def test_the_temperature_is_where_the_known_order_is_likeliest() -> None:
    margin = 3 * draws(2) + 1
    grid = np.exp(np.linspace(math.log(0.01), math.log(100), 20001))
    losses = [np.logaddexp(0, -margin / temperature).mean() for temperature in grid]
    # Steps of the grid are ln(10,000) / 20,000 = 0.00046.
    assert temperature_of(margin) == pytest.approx(grid[int(np.argmin(losses))], rel=0.0005)
    assert temperature_of(10 * margin) == pytest.approx(10 * temperature_of(margin), rel=1e-6)


def test_pseudo_pairs_keep_a_model_that_is_always_right_from_being_sure() -> None:
    margin = np.full(9, 2.0)
    assert temperature_of(margin) == pytest.approx(0.01)
    # 9 pairs and a pseudo pair, half of which is wrong: 9.5 of 10 are right, and sigmoid(2 / T) = 0.95.
    assert temperature_of(margin, num_pseudo_pairs=1) == pytest.approx(2 / math.log(0.95 / 0.05), rel=1e-6)


def test_probabilities_are_the_softmax_over_the_temperature() -> None:
    # exp(2 / 2) = e and exp(0) = 1.
    assert Calibration(2.0).probabilities([2.0, 0.0]) == pytest.approx(
        [math.e / (math.e + 1), 1 / (math.e + 1)]
    )
    assert Calibration().probabilities([1e4, -1e4, 0.0]) == [1.0, 0.0, 0.0]
    assert Calibration(2.0, mean=1.0).above_mean(3.0) == pytest.approx(math.e / (math.e + 1))
    assert Calibration(2.0).above_mean(3.0) is None


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": math.nan}, {"mean": math.inf}])
def test_a_scale_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is a finite number"):
        Calibration(**wrong)
