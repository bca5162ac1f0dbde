"""Findings: what an audit says of a model, with the test behind it and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from basereward.stats.interval import Interval
from basereward.stats.seeds import LEVEL, PairedDifference, holm, t_quantile, t_tail

Family = Literal["ablations", "shortcuts", "regression", "stability", "calibration"]
State = Literal["found", "clear", "undecided"]

MATERIAL = 0.2
"""Spreads of the reward from which on a shortcut is material: a small effect by Cohen's convention."""

LOSS = 0.05
"""Accuracy below which the loss of something counts as none."""

FLIPS = 0.05
"""Share of orders that may flip by a change that means nothing."""


@dataclass(frozen=True)
class Finding:
    """One claim about a model, tested.

    Attributes:
        family: The part of the audit.
        name: The measure.
        claim: What would be at fault, in a few words: "pays for length".
        value: The measured number.
        low: Lower end of its 95 % interval; NaN where the number is no estimate.
        high: Upper end.
        unit: Of the number: "spreads", "accuracy", "share".
        num: Rows that it was measured on.
        p: The p-value; None where the number is exact.
        adjusted: The p-value after Holm's correction over the findings of the audit; None before it, when
            nothing but an exact number is found.
        is_large: Whether the number is on the wrong side of its limit.
        is_excluded: Whether the interval lies on the right side of it.
        advice: What to do about it.
    """

    family: Family
    name: str
    claim: str
    value: float
    low: float
    high: float
    unit: str
    num: int
    p: float | None
    adjusted: float | None
    is_large: bool
    is_excluded: bool
    advice: str

    @property
    def state(self) -> State:
        """`found` where it is large and significant, `clear` where the interval excludes it, else
        `undecided`: more rows would tell.
        """
        is_significant = self.p is None or (self.adjusted is not None and self.adjusted < LEVEL)
        if self.is_large and is_significant:
            return "found"
        return "clear" if self.is_excluded else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding for a JSON report."""
        values = {name: None if value != value else value for name, value in asdict(self).items()}
        return {"state": self.state, **values}

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3g}"
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings with their p-values corrected for the number of tests (Holm, 1979).

    Holm's correction bounds the chance of a single false accusation, since each one costs its reader a search
    for a fault that isn't there; the false discovery rate would grant a share of them.
    """
    tested = [finding for finding in findings if finding.p is not None]
    adjusted = iter(holm([finding.p for finding in tested if finding.p is not None]))
    return [
        finding if finding.p is None else replace(finding, adjusted=next(adjusted)) for finding in findings
    ]


def presence(
    family: Family, name: str, pays_for: str, between: PairedDifference, num: int, advice: str
) -> Finding:
    """Return the finding that something buys reward, or costs it, by the test that it does neither."""
    verb = "pays for" if between.value >= 0 else "charges for"
    return Finding(
        family=family,
        name=name,
        claim=f"{verb} {pays_for}",
        value=between.value,
        low=between.low,
        high=between.high,
        unit="spreads",
        num=num,
        p=between.p,
        adjusted=None,
        is_large=abs(between.value) >= MATERIAL,
        is_excluded=between.low > -MATERIAL and between.high < MATERIAL,
        advice=advice,
    )


def absence(family: Family, name: str, claim: str, loss: PairedDifference, num: int, advice: str) -> Finding:
    """Return the finding that something makes no difference, by the test that it makes one of `LOSS`."""
    freedom = max(1, num - 1)
    error = (loss.high - loss.low) / 2 / t_quantile(freedom)
    if error > 0:
        tail = t_tail((LOSS - loss.value) / error, freedom) / 2
        p = tail if loss.value < LOSS else 1 - tail
    else:
        p = 0.0 if loss.value < LOSS else 1.0
    return Finding(
        family=family,
        name=name,
        claim=claim,
        value=loss.value,
        low=loss.low,
        high=loss.high,
        unit="accuracy",
        num=num,
        p=p,
        adjusted=None,
        is_large=loss.value < LOSS,
        is_excluded=loss.low > 0,
        advice=advice,
    )


def share_above(
    family: Family, name: str, claim: str, share: Interval, limit: float, advice: str, *, below: bool = False
) -> Finding:
    """Return the finding that a share is above a limit, or below it, by the score test of that."""
    error = math.sqrt(limit * (1 - limit) / share.num_effective)
    distance = (share.value - limit) / error * (-1 if below else 1)
    return Finding(
        family=family,
        name=name,
        claim=claim,
        value=share.value,
        low=share.low,
        high=share.high,
        unit="share",
        num=share.num_pairs,
        p=math.erfc(distance / math.sqrt(2)) / 2,
        adjusted=None,
        is_large=distance > 0,
        is_excluded=share.low > limit if below else share.high < limit,
        advice=advice,
    )
