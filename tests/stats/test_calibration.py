"""The temperature of margins against a search over a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from basereward.stats.calibration import temperature_of


def test_the_temperature_is_where_the_known_order_is_likeliest() -> None:
    margin = 3 * np.random.default_rng(2).normal(size=200) + 1
    grid = np.exp(np.linspace(math.log(0.01), math.log(100), 20001))
    losses = [np.logaddexp(0, -margin / temperature).mean() for temperature in grid]
    # Steps of the grid are ln(10,000) / 20,000 = 0.00046.
    assert temperature_of(margin) == pytest.approx(grid[int(np.argmin(losses))], rel=0.0005)
    assert temperature_of(10 * margin) == pytest.approx(10 * temperature_of(margin), rel=1e-6)
