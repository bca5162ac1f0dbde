"""Rewards as probabilities: the temperature that they are divided by before a softmax or a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """The scale of a model's rewards.

    Args:
        temperature: The number to divide rewards by, so that they are log-odds; None where none was fitted,
            which counts as 1.
        mean: The mean reward of held-out responses; None where nobody measured it.

    Raises:
        ValueError: When one can't be.
    """

    temperature: float | None = None
    mean: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature is a finite number > 0, not {self.temperature}")
        if self.mean is not None and not math.isfinite(self.mean):
            raise ValueError(f"a mean reward is a finite number, not {self.mean}")

    def probabilities(self, rewards: Sequence[float]) -> list[float]:  # [N] -> [N]
        """Return the probability of each response to be the best: the softmax of rewards over temperature."""
        scaled = [reward / (self.temperature or 1.0) for reward in rewards]
        highest = max(scaled)
        weights = [math.exp(value - highest) for value in scaled]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    def above_mean(self, reward: float) -> float | None:
        """Return the probability of a response to be better than one of mean reward; None without a mean."""
        return None if self.mean is None else self.probabilities([reward, self.mean])[0]


def temperature_of(
    margin: NDArray[np.float64],  # [P]
    *,
    num_pseudo_pairs: float = 0.0,
) -> float:
    """Return the number to divide margins by that makes the known order likeliest; within 1/100 to 100.

    Args:
        margin: The better response's reward less the worse one's, of each pair.
        num_pseudo_pairs: Pairs of mean size that are counted too, half of them in the wrong order. Without
            any, a model that has few pairs and all of them right is as sure as can be.
    """
    import numpy as np

    low, high = math.log(0.01), math.log(100.0)
    scale = float(np.abs(margin).mean()) or 1.0
    margin = np.append(margin, [scale, -scale])
    weight = np.append(np.ones(len(margin) - 2), [num_pseudo_pairs / 2] * 2)
    for _ in range(60):
        middle = (low + high) / 2
        # The derivative of the log-likelihood by the factor exp(middle).
        steepness = margin / scale / (1 + np.exp(np.clip(margin * math.exp(middle), -700, 700)))
        low, high = (middle, high) if float((weight * steepness).sum()) > 0 else (low, middle)
    return math.exp(-(low + high) / 2)
