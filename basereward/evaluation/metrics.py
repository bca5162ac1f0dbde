"""Metrics of scored pairs: accuracy, calibration and length bias.

Shapes: P pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.evaluation.scored_pairs import (
    PairCollector,
    ScoredPairs,
    evaluable_pairs,
    unit_scores_of,
)
from basereward.stats.calibration import temperature_of
from basereward.stats.interval import Interval, interval_of

GAPS = (0.5, 1.5, 3.0)
"""Rating gaps of the accuracy by gap; the steps of the human ratings that have a known ceiling."""

LENGTHS = {
    "under half as long": (0.0, 0.5),
    "0.5 to 0.8 times as long": (0.5, 0.8),
    "0.8 to 1.25 times as long": (0.8, 1.25),
    "1.25 to 2 times as long": (1.25, 2.0),
    "over twice as long": (2.0, np.inf),
}
"""Bins of the better response's length over the worse one's, each from its lower end to below its upper."""

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of similar confidence.

    Attributes:
        low: Smallest confidence, 0.5 to 1.
        high: Largest.
        num_pairs: How many there are.
        confidence: Their mean confidence.
        accuracy: How often the response with the higher reward is the better one.
    """

    low: float
    high: float
    num_pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class PairMetrics:
    """Metrics of a model's rewards on comparisons.

    Attributes:
        accuracy: Share of pairs whose better response has the higher reward; pairs of equal reward count
            half, pairs that are tied in the data are left out.
        top1: Share of comparisons whose highest reward belongs to a best response.
        top1_chance: The same of a random response.
        margin: Mean of the better response's reward less the worse one's.
        margin_std: Standard deviation of that.
        auc: How often a better response of any comparison has a higher reward than a worse one of any: the
            accuracy across prompts.
        log_loss: Mean of -log p, where p = sigmoid(margin) is the model's probability of the known order.
        brier: Mean of (1 - p)^2.
        ece: Expected calibration error: the mean over pairs of |accuracy - confidence| of the pair's bin.
        bins: Pairs by confidence max(p, 1 - p), in bins of equal width.
        temperature: The number to divide rewards by before they are read as log-odds, fitted to these pairs
            and one more that is half right, half wrong.
        fitted_ece: The expected calibration error of rewards over `temperature`: what no scale mends.
        by_gap: Accuracy of the pairs whose ratings differ by at least so much; empty without ratings.
        by_source: Accuracy by data set.
        by_category: Accuracy by `category` of the comparisons' `meta`; empty where there is none.
        by_length: Accuracy by how long the better response is beside the worse one.
        longer_baseline: Accuracy of always taking the longer response.
        where_longer: Accuracy on the pairs whose better response is the longer one; None if there is none.
        where_shorter: Accuracy on the pairs whose better response is the shorter one.
        length_correlation: Correlation of reward and characters within comparisons; None if one never varies.
        num_comparisons: Comparisons with a pair.
        num_label_ties: Pairs left out, being tied in the data.
        num_reward_ties: Pairs counted half, being tied by the model.
    """

    accuracy: Interval
    top1: Interval
    top1_chance: float
    margin: float
    margin_std: float
    auc: float
    log_loss: float
    brier: float
    ece: float
    bins: tuple[Bin, ...]
    temperature: float
    fitted_ece: float
    by_gap: Mapping[float, Interval]
    by_source: Mapping[str, Interval]
    by_category: Mapping[str, Interval]
    by_length: Mapping[str, Interval]
    longer_baseline: Interval
    where_longer: Interval | None
    where_shorter: Interval | None
    length_correlation: float | None
    num_comparisons: int
    num_label_ties: int
    num_reward_ties: int

    @property
    def tie_rate(self) -> float:
        """The share of pairs whose responses have the same reward."""
        return self.num_reward_ties / self.accuracy.num_pairs

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON report, with `accuracy`, `low`, `high` and `num_pairs` at the top."""
        return {
            **self.accuracy.to_dict(),
            "num_comparisons": self.num_comparisons,
            "num_label_ties": self.num_label_ties,
            "num_reward_ties": self.num_reward_ties,
            "tie_rate": self.tie_rate,
            "top1": _of_comparisons(self.top1) | {"chance": self.top1_chance},
            "margin": {"mean": self.margin, "std": self.margin_std},
            "auc": self.auc,
            "calibration": {
                "ece": self.ece,
                "brier": self.brier,
                "log_loss": self.log_loss,
                "temperature": self.temperature,
                "fitted_ece": self.fitted_ece,
                "bins": [asdict(bin) for bin in self.bins],
            },
            "by_gap": {f"{gap:g}": part.to_dict() for gap, part in self.by_gap.items()},
            "by_source": {name: part.to_dict() for name, part in self.by_source.items()},
            "by_category": {name: part.to_dict() for name, part in self.by_category.items()},
            "length": {
                "longer_baseline": self.longer_baseline.to_dict(),
                "accuracy_where_longer_is_better": self.where_longer and self.where_longer.to_dict(),
                "accuracy_where_shorter_is_better": self.where_shorter and self.where_shorter.to_dict(),
                "correlation_with_reward": self.length_correlation,
                "accuracy_where_better_is": {name: part.to_dict() for name, part in self.by_length.items()},
            },
        }


def metrics_of(pairs: ScoredPairs, *, gaps: Sequence[float] = GAPS) -> PairMetrics:
    """Compute every metric of scored pairs.

    Raises:
        DataError: When there is no pair, or only ties.
    """
    if len(pairs.chosen) == 0:
        ties = f"; {pairs.num_label_ties} are tied" if pairs.num_label_ties else ""
        raise DataError(f"there is nothing to evaluate: no pair of responses has a known order{ties}")
    margin, unit_scores = pairs.margin, pairs.unit_scores
    temperature = temperature_of(margin, num_pseudo_pairs=1)
    bins = calibration_bins(_confidence(margin), unit_scores)
    fitted_bins = calibration_bins(_confidence(margin / temperature), unit_scores)
    log_losses = np.logaddexp(0.0, -margin)  # -log sigmoid(margin), finite for any margin
    ratio = pairs.length_ratio
    is_length = {name: (ratio >= low) & (ratio < high) for name, (low, high) in LENGTHS.items()}
    return PairMetrics(
        accuracy=interval_of(unit_scores, pairs.group),
        top1=interval_of(pairs.top, np.arange(len(pairs.top))),
        top1_chance=float(pairs.top_chance.mean()),
        margin=float(margin.mean()),
        margin_std=float(margin.std()),
        auc=auc_of(pairs.chosen, pairs.rejected),
        log_loss=float(log_losses.mean()),
        brier=float(np.mean(np.expm1(-log_losses) ** 2)),  # 1 - p = -expm1(log p)
        ece=_calibration_error(bins),
        bins=bins,
        temperature=temperature,
        fitted_ece=_calibration_error(fitted_bins),
        by_gap={gap: part for gap in gaps if (part := _part(pairs, pairs.gap >= gap)) is not None},
        by_source=_by(pairs, pairs.source, pairs.sources),
        by_category=_by(pairs, pairs.category, pairs.categories) if any(pairs.categories) else {},
        by_length={
            name: part for name, is_in in is_length.items() if (part := _part(pairs, is_in)) is not None
        },
        longer_baseline=interval_of(unit_scores_of(pairs.length_difference), pairs.group),
        where_longer=_part(pairs, pairs.length_difference > 0),
        where_shorter=_part(pairs, pairs.length_difference < 0),
        length_correlation=None if np.isnan(pairs.length_correlation) else pairs.length_correlation,
        num_comparisons=pairs.num_comparisons,
        num_label_ties=pairs.num_label_ties,
        num_reward_ties=int((margin == 0).sum()),
    )


def calibration_bins(
    confidence: NDArray[np.float64],  # [P] 0.5 to 1
    unit_scores: NDArray[np.float64],  # [P]
) -> tuple[Bin, ...]:
    """Return the pairs in bins of equal width; empty bins are left out."""
    edges = np.linspace(0.5, 1.0, NUM_BINS + 1)
    # A confidence of exactly 1 belongs to the last bin.
    place = np.minimum(((confidence - 0.5) * 2 * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = []
    for number in np.unique(place):
        here = place == number
        bins.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                num_pairs=int(here.sum()),
                confidence=float(confidence[here].mean()),
                accuracy=float(unit_scores[here].mean()),
            )
        )
    return tuple(bins)


def _confidence(margin: NDArray[np.float64]) -> NDArray[np.float64]:  # [P] -> [P]
    confidence: NDArray[np.float64] = 1 / (1 + np.exp(-np.abs(margin)))
    return confidence


def _calibration_error(bins: Sequence[Bin]) -> float:
    total = sum(bin.num_pairs for bin in bins)
    return sum(bin.num_pairs * abs(bin.accuracy - bin.confidence) for bin in bins) / total


def auc_of(
    chosen: NDArray[np.float64],  # [P]
    rejected: NDArray[np.float64],  # [P]
) -> float:
    """Return how often a chosen reward is above any rejected one; equal ones count half."""
    ordered = np.sort(rejected)
    below = np.searchsorted(ordered, chosen, side="left")
    below_or_equal = np.searchsorted(ordered, chosen, side="right")
    return float((below + below_or_equal).mean() / (2 * len(rejected)))


def pair_metrics(comparisons: Iterable[Comparison], rewards: Iterable[Sequence[float]]) -> dict[str, float]:
    """Return the numbers of a held-out evaluation that a training logs.

    Args:
        comparisons: With ranks.
        rewards: For each comparison, its responses' rewards.

    Raises:
        DataError: When no pair has a known order, or a comparison has no pair.
    """
    collector = PairCollector()
    for comparison, scored in zip(comparisons, rewards, strict=True):
        evaluable_pairs(comparison)
        collector.add(comparison, scored)
    metrics = metrics_of(collector.collected())
    return {
        "accuracy": metrics.accuracy.value,
        "low": metrics.accuracy.low,
        "high": metrics.accuracy.high,
        "num_pairs": metrics.accuracy.num_pairs,
        "num_comparisons": metrics.num_comparisons,
        "top1": metrics.top1.value,
        "margin": metrics.margin,
        "margin_std": metrics.margin_std,
        "auc": metrics.auc,
        "log_loss": metrics.log_loss,
        "brier": metrics.brier,
        "ece": metrics.ece,
        "longer_baseline": metrics.longer_baseline.value,
        "temperature": metrics.temperature,
    }


def _part(pairs: ScoredPairs, is_in: NDArray[np.bool_]) -> Interval | None:
    return interval_of(pairs.unit_scores[is_in], pairs.group[is_in]) if is_in.any() else None


def _by(
    pairs: ScoredPairs,
    label: NDArray[np.int64],  # [P]
    names: Sequence[str],
) -> dict[str, Interval]:
    parts = ((name, _part(pairs, label == number)) for number, name in enumerate(names))
    return {name: part for name, part in parts if part is not None}


def _of_comparisons(interval: Interval) -> dict[str, float]:
    return {
        "accuracy": interval.value,
        "low": interval.low,
        "high": interval.high,
        "num_comparisons": interval.num_pairs,
    }
