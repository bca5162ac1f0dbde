"""Plots of an audit: accuracy by what is taken away, what each shortcut buys, accuracy against coverage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from basereward.evaluation.audit.findings import MATERIAL
from basereward.reporting.plots import NEUTRAL, RIGHT, WRONG, figure_of

if TYPE_CHECKING:
    from basereward.evaluation.audit.results import Audit

Points = Mapping[str, tuple[float, float, float, str]]
"""By name: a value, the ends of its interval, and its colour."""


def figures(audit: Audit) -> dict[str, Any]:
    """Return a matplotlib figure of each part that there is, by name."""
    whole = audit.metrics.accuracy
    accuracies: dict[str, tuple[float, float, float, str]] = {
        "whole": (whole.value, whole.low, whole.high, NEUTRAL)
    }
    for name, ablation in audit.ablations.items():
        part = ablation.accuracy
        accuracies[name] = (part.value, part.low, part.high, RIGHT)
    drawn = {"ablations": _points(accuracies, "Accuracy by what is taken away", "pair accuracy", (0.5,))}
    flagged = {finding.name for finding in audit.flagged if finding.family == "shortcuts"}
    gains = {
        name: (bought.gain.value, bought.gain.low, bought.gain.high, WRONG if name in flagged else RIGHT)
        for name, bought in audit.shortcuts.items()
    }
    if gains:
        limits = (-MATERIAL, 0.0, MATERIAL)
        title = "Reward that a shortcut buys"
        drawn["shortcuts"] = _points(gains, title, "spreads of the reward", limits)
    return {**drawn, "coverage": _coverage(audit)}


def _points(points: Points, title: str, label: str, lines: tuple[float, ...]) -> Any:
    figure, axes = figure_of(title, "bars: 95 % interval", height=1.6 + 0.36 * len(points))
    for place, (value, low, high, colour) in enumerate(points.values()):
        axes.hlines(place, low, high, color=colour, linewidth=3, alpha=0.45)
        axes.plot([value], [place], "o", color=colour)
    for line in lines:
        axes.axvline(line, color=NEUTRAL, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(points)), list(points))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return figure


def _coverage(audit: Audit) -> Any:
    figure, axes = figure_of("Accuracy against coverage", "of the pairs with the largest margins; 95 %")
    shares = list(audit.coverage)
    parts = list(audit.coverage.values())
    lows, highs = [part.low for part in parts], [part.high for part in parts]
    axes.fill_between(shares, lows, highs, color=RIGHT, alpha=0.2)
    axes.plot(shares, [part.value for part in parts], "o-", color=RIGHT)
    axes.set_xlabel("share of pairs that are answered")
    axes.set_ylabel("accuracy")
    return figure
