"""Base of benchmarks of steps: solutions whose steps have labels, and F1 scores of the steps' rewards.

Shapes: S steps of all solutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.parts import PartedBenchmark
from basereward.stats.metric import Kind, Metric, MetricPart

RIGHT, WRONG = "right", "wrong"


class StepBenchmark(PartedBenchmark):
    """A benchmark whose responses are a solution up to the end of each step, best scored by a model of the
    paradigm `steps`; rank 0 is of a right step, 1 of a wrong one.

    Args:
        path: As the subclass says.
        images: The directory that paths of images start from, if they don't lie beside the annotation.
        threshold: The reward above which a step counts as right; 0 is a probability of one half.
    """

    is_absolute = True
    scores_single = True

    def __init__(self, path: str | Path, *, images: Path | None = None, threshold: float = 0.0) -> None:
        super().__init__(path, images=images)
        self.threshold = threshold
        self.ties = f"a reward of {threshold:g} or less says that a step is wrong"

    def _baselines(
        self, rewards: Sequence[Sequence[float] | None]
    ) -> tuple[Mapping[str, Metric | None], Mapping[str, Metric]]:
        """Return nothing: the length of a solution so far says nothing of its last step."""
        return {name: None for name in self.metrics(Scored.of(self.items, rewards))}, {}

    @property
    def remarks(self) -> Sequence[str]:
        """The scores of calling every step right, and every step wrong, beside what is not supported."""
        always = {
            name: [[self.threshold + sign] * len(item.ranks) for item in self.items]
            for name, sign in ((RIGHT, 1.0), (WRONG, -1.0))
        }
        first = [
            next(iter(self.metrics(Scored.of(self.items, rewards)).items())) for rewards in always.values()
        ]
        listed = ", ".join(
            f"every step {verdict} {100 * metric.value:.2f}"
            for verdict, (_, metric) in zip(always, first, strict=True)
        )
        return (*super().remarks, f"Without a model, {first[0][0]}: {listed}.")


def f1(
    scored: Scored,
    weights: Mapping[str, float],
    threshold: float,
    where: NDArray[np.bool_] | None = None,  # [K]
    *,
    kind: Kind = "official",
) -> Metric:
    """Return the F1 scores of right and of wrong steps, added up with weights.

    F1 = 2 TP / (2 TP + FP + FN) is the mean of "is the step judged rightly" in which a step of the class that
    is found counts 2, one that is missed or wrongly found counts 1, and another one 0. Its interval is the
    bootstrap of solutions. Chance is 2 p q / (p + q) with the share p of the class and q = 1/2.

    Args:
        scored: The comparisons.
        weights: Of each class, "right" and "wrong".
        threshold: The reward above which a step counts as right.
        where: The comparisons to count; None for all.
        kind: The metric's kind.
    """
    rows = np.arange(len(scored.items)) if where is None else np.flatnonzero(where)
    comparison, place = np.nonzero(~np.isnan(scored.ranks[rows]))
    comparison = rows[comparison]
    is_right = scored.ranks[comparison, place] == 0  # [S]
    says_right = scored.rewards[comparison, place] > threshold
    is_judged_rightly = (is_right == says_right).astype(np.float64)
    parts = []
    for name, weight in weights.items():
        is_in, says_in = (is_right, says_right) if name == RIGHT else (~is_right, ~says_right)
        share = float(is_in.mean())
        chance = np.full(len(is_in), share / (share + 0.5))
        counts = is_in.astype(np.float64) + says_in
        parts.append(MetricPart(is_judged_rightly, scored.group[comparison], chance, weight, counts))
    return Metric(tuple(parts), "steps", kind, "bootstrap")


def macro_f1(
    scored: Scored, threshold: float, where: NDArray[np.bool_] | None = None, *, kind: Kind = "official"
) -> Metric:
    """Return the mean of both classes' F1 scores."""
    return f1(scored, {RIGHT: 0.5, WRONG: 0.5}, threshold, where, kind=kind)


def share_of_right(scored: Scored, where: NDArray[np.bool_]) -> float:
    """Return the share of right steps among those of some comparisons."""
    ranks = scored.ranks[where]
    return float((ranks == 0).sum() / (~np.isnan(ranks)).sum())
