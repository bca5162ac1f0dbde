"""Evaluation: rewards held against known orders, with intervals, calibration and what length explains."""

from basereward.evaluation.evaluator import Evaluation, Result, evaluate
from basereward.evaluation.metrics import Metrics, pair_metrics
from basereward.stats.interval import Interval
from basereward.stats.measure import Score

__all__ = ["Evaluation", "Interval", "Metrics", "Result", "Score", "evaluate", "pair_metrics"]
