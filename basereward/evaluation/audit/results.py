"""The records of an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from basereward.errors import DataError
from basereward.evaluation.audit.features import Slopes
from basereward.evaluation.audit.findings import Finding, State
from basereward.evaluation.audit.trials import Cost
from basereward.evaluation.metrics import PairMetrics
from basereward.evaluation.scored_pairs import ScoredPairs
from basereward.stats.interval import Interval
from basereward.stats.seeds import PairedDifference

STATES: tuple[State, ...] = ("found", "undecided", "clear")


@dataclass(frozen=True, slots=True)
class Ablation:
    """The pairs with something taken away.

    Attributes:
        accuracy: With it away.
        whole: Of the same rows as they are.
        loss: Accuracy of the whole less that with it away, paired.
        same_order: Share of rows whose order is the same without it: which doesn't need it.
    """

    accuracy: Interval
    whole: Interval
    loss: PairedDifference
    same_order: Interval


@dataclass(frozen=True, slots=True)
class Bought:
    """The reward that an edit buys at equal content.

    Attributes:
        gain: Reward with the shortcut less that without, in spreads, over rows.
        better: The mean gain of better responses; NaN where there is none.
        worse: That of worse responses.
        turned: Share of pairs in the right order that leave it where the worse response has the shortcut;
            None of a model that compares.
        num: Rows.
    """

    gain: PairedDifference
    better: float
    worse: float
    turned: Interval | None
    num: int


@dataclass(frozen=True, slots=True)
class Steadiness:
    """The pairs after a change that means nothing.

    Attributes:
        flipped: Share of rows whose order changes.
        largest: Largest change of a reward, in spreads.
        mean: Mean change of a reward, in spreads.
    """

    flipped: Interval
    largest: float
    mean: float


@dataclass(frozen=True, slots=True)
class ShortcutFailure:
    """The pairs by whether a model of text alone has them right (arXiv 2503.03122).

    Attributes:
        text_model: The model of text alone.
        right: Accuracy where it is right; None where that is nowhere.
        wrong: Accuracy where it is wrong.
    """

    text_model: str
    right: Interval | None
    wrong: Interval | None

    @property
    def degradation(self) -> float:
        """Shortcut-failure degradation: the accuracy that is lost where the text misleads."""
        return math.nan if self.right is None or self.wrong is None else self.right.value - self.wrong.value


@dataclass(frozen=True)
class Audit:
    """The findings of an audit, with the numbers behind it.

    Attributes:
        findings: Every claim that was tested, those that are found first.
        num_rows: Rows that were audited, a pair of each.
        num_read: Rows that were read.
        spread: The standard deviation of rewards within pairs, the unit of changes.
        metrics: Of the pairs as they are.
        pairs: The columns that they were computed from.
        ablations: By name.
        shortcuts: By name of the edit.
        slopes: The regression on features of the responses as they are.
        stability: By name of the change.
        shortcut_failure: By a model of text alone; None where no row has images.
        temperature: The number to divide rewards by, so that they are the best log-odds.
        confidence: How often a pair in the right order has a larger margin than one in the wrong order.
        coverage: Accuracy of the most confident share of pairs, by that share.
        costs: By part.
        once: The cost of scoring the same pairs once.
        skipped: Measures that could not be taken, with the reason.
        rejected: Rows and trials that could not be used.
        seconds: Duration.
    """

    findings: Sequence[Finding]
    num_rows: int
    num_read: int
    spread: float
    metrics: PairMetrics
    pairs: ScoredPairs
    ablations: Mapping[str, Ablation]
    shortcuts: Mapping[str, Bought]
    slopes: Slopes
    stability: Mapping[str, Steadiness]
    shortcut_failure: ShortcutFailure | None
    temperature: float
    confidence: Interval | None
    coverage: Mapping[float, Interval]
    costs: Mapping[str, Cost]
    skipped: Mapping[str, str]
    rejected: Sequence[DataError]
    once: Cost
    seconds: float

    @property
    def flagged(self) -> list[Finding]:
        """The claims that hold."""
        return [finding for finding in self.findings if finding.state == "found"]

    @property
    def total(self) -> Cost:
        """The cost of all parts."""
        columns = zip(*(asdict(cost).values() for cost in self.costs.values()), strict=True)
        return Cost(*map(sum, columns))

    @property
    def times_once(self) -> float:
        """The audit's tokens over those of scoring the same pairs once; of a baseline its responses."""
        if self.once.num_tokens:
            return self.total.num_tokens / self.once.num_tokens
        return self.total.num_responses / self.once.num_responses

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each finding; pandas has to be installed."""
        import pandas

        return pandas.DataFrame([finding.to_dict() for finding in self.findings])

    def figures(self) -> dict[str, Any]:
        """Return the plots of a report as matplotlib figures, by name: `ablations`, `shortcuts`, `coverage`,
        and those of the pairs, as an evaluation has them.
        """
        from basereward.evaluation import plots as evaluation_plots
        from basereward.evaluation.audit import plots

        return {**plots.figures(self), **evaluation_plots.figures(self.metrics, self.pairs)}

    def to_dict(self) -> dict[str, Any]:
        """Return the audit for a JSON report."""
        failure = self.shortcut_failure
        content: dict[str, Any] = _finite(
            {
                "num_rows": self.num_rows,
                "num_read": self.num_read,
                "num_rejected": len(self.rejected),
                "spread": self.spread,
                "findings": [finding.to_dict() for finding in self.findings],
                "accuracy": self.metrics.accuracy.to_dict(),
                "ablations": {name: asdict(part) for name, part in self.ablations.items()},
                "shortcuts": {name: asdict(part) for name, part in self.shortcuts.items()},
                "regression": asdict(self.slopes),
                "stability": {name: asdict(part) for name, part in self.stability.items()},
                "shortcut_failure": None
                if failure is None
                else {**asdict(failure), "degradation": failure.degradation},
                "calibration": {
                    "ece": self.metrics.ece,
                    "brier": self.metrics.brier,
                    "log_loss": self.metrics.log_loss,
                    "temperature": self.temperature,
                    "confidence": self.confidence and asdict(self.confidence),
                },
                "coverage": {f"{share:g}": part.to_dict() for share, part in self.coverage.items()},
                "costs": {name: asdict(cost) for name, cost in self.costs.items()},
                "scoring_once": asdict(self.once),
                "times_scoring_once": self.times_once,
                "skipped": dict(self.skipped),
                "seconds": round(self.seconds, 3),
            }
        )
        return content


def _finite(value: Any) -> Any:
    """Return a value for JSON, which has no number that is not finite: null stands for one."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
