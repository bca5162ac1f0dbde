"""Calibration: margins of rewards as log-odds.

Shapes: K pairs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def temperature_of(margin: NDArray[np.float64]) -> float:  # [K]
    """Return the number to divide margins by that makes the known order likeliest; within 1/100 to 100."""
    low, high = math.log(0.01), math.log(100.0)
    scale = float(np.abs(margin).mean()) or 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # The derivative of the mean log-likelihood by the factor exp(middle).
        slope = float((margin / scale / (1 + np.exp(np.clip(margin * math.exp(middle), -700, 700)))).mean())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp(-(low + high) / 2)
