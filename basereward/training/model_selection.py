"""Model selection and early stopping: which validation is the best so far, and when training ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basereward.comparison import Comparison
from basereward.config.conversion import did_you_mean
from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.evaluation import pair_metrics

LOWER_IS_BETTER = ("log_loss", "brier", "ece")
REWARD_METRICS = ("reward_mean", "reward_std")
"""Metrics of a validation besides those of pairs."""


class ModelSelector:
    """Chooses the best model by a metric of its validation.

    Args:
        config: `best_by`, the metric, and `patience`.

    Raises:
        ConfigError: When there is no such metric.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric = config.best_by.removeprefix("-")
        self.patience = config.patience
        self._is_lower_better = config.best_by.startswith("-") or self.metric in LOWER_IS_BETTER
        pair = Comparison("", ["better", "worse"], ranks=[0, 1])
        metrics = (*pair_metrics([pair], [[1.0, 0.0]]), *REWARD_METRICS)
        if self.metric not in metrics:
            hint = did_you_mean(self.metric, metrics) or ";"
            raise ConfigError(
                f"train.best_by: there is no metric {self.metric!r}{hint} metrics: {', '.join(metrics)}"
            )

    def is_better(self, metrics: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
        """Return whether a validation beats the best so far; a tie is broken by log loss, then by age."""
        if not best:
            return True
        new, old = metrics[self.metric], best[self.metric]
        if new == old:
            return bool(metrics["log_loss"] < best["log_loss"])
        return bool(new < old if self._is_lower_better else new > old)

    def stops_early(self, num_worse: int) -> bool:
        """Return whether training ends early, `num_worse` validations after the best one."""
        return self.patience is not None and num_worse >= self.patience
