"""Which evaluation is the best so far, and when better ones are no longer waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basereward.comparison import Comparison
from basereward.config.conversion import did_you_mean
from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.evaluation import pair_metrics

SMALLER_IS_BETTER = ("log_loss", "brier", "ece")
OF_REWARDS = ("reward_mean", "reward_std")
"""Metrics of a held-out evaluation besides those of pairs."""


class Best:
    """Chooses the best evaluation.

    Args:
        config: Says by which metric, and how long to wait for a better one.

    Raises:
        ConfigError: When there is no such metric.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric = config.best_by.removeprefix("-")
        self.patience = config.patience
        self._is_smaller_better = config.best_by.startswith("-") or self.metric in SMALLER_IS_BETTER
        pair = Comparison("", ["better", "worse"], ranks=[0, 1])
        known = (*pair_metrics([pair], [[1.0, 0.0]]), *OF_REWARDS)
        if self.metric not in known:
            hint = did_you_mean(self.metric, known) or ";"
            raise ConfigError(
                f"train.best_by: there is no metric {self.metric!r}{hint} metrics: {', '.join(known)}"
            )

    def is_better(self, metrics: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
        """Tell whether an evaluation beats the best so far; of equals the lower loss does, or the earlier."""
        if not best:
            return True
        new, old = metrics[self.metric], best[self.metric]
        if new == old:
            return bool(metrics["log_loss"] < best["log_loss"])
        return bool(new < old if self._is_smaller_better else new > old)

    def is_given_up(self, num_worse: int) -> bool:
        """Tell whether training ends.

        Args:
            num_worse: Evaluations since the best one.
        """
        return self.patience is not None and num_worse >= self.patience
