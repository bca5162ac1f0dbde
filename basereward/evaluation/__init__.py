"""Evaluation: rewards compared with known orders, with intervals, calibration and length bias."""

from basereward.evaluation.evaluator import evaluate
from basereward.evaluation.metrics import PairMetrics, pair_metrics
from basereward.evaluation.report import save_report
from basereward.evaluation.results import Evaluation, Result
from basereward.stats.interval import Interval
from basereward.stats.metric import Score

__all__ = [
    "Evaluation",
    "Interval",
    "PairMetrics",
    "Result",
    "Score",
    "evaluate",
    "pair_metrics",
    "save_report",
]
