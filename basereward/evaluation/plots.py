"""Plots of an evaluation: margins, calibration, accuracy by rating gap, source, category and length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from basereward.evaluation.metrics import PairMetrics
from basereward.evaluation.scored_pairs import ScoredPairs
from basereward.reporting.plots import NEUTRAL, RIGHT, WRONG, figure_of, label_of
from basereward.stats.interval import Interval

MAX_SOURCES = 20


def figures(metrics: PairMetrics, pairs: ScoredPairs) -> dict[str, Any]:
    """Return a matplotlib figure of each metric that there is, by name."""
    drawn = {"margins": _margins(metrics, pairs), "calibration": _calibration(metrics)}
    if metrics.by_gap:
        parts = {f"{gap:g} or more": part for gap, part in metrics.by_gap.items()}
        drawn["accuracy_by_gap"] = _accuracies(metrics, parts, "difference of ratings")
    if len(metrics.by_source) > 1:
        parts = {name or "(no source)": part for name, part in _largest(metrics.by_source).items()}
        drawn["accuracy_by_source"] = _accuracies(metrics, parts, "data set")
    if len(metrics.by_category) > 1:
        drawn["accuracy_by_category"] = _accuracies(metrics, _largest(metrics.by_category), "category")
    by_length = _accuracies(metrics, metrics.by_length, "length of the better response")
    return {**drawn, "accuracy_by_length": by_length}


def _largest(parts: Mapping[str, Interval]) -> dict[str, Interval]:
    return dict(sorted(sorted(parts.items(), key=lambda entry: -entry[1].num_pairs)[:MAX_SOURCES]))


def _margins(metrics: PairMetrics, pairs: ScoredPairs) -> Any:
    figure, axes = figure_of("Reward margin of each pair", f"pair accuracy {metrics.accuracy}")
    margin = pairs.margin
    # A few outliers would squeeze all other pairs into one bar; they are counted in the outermost bars.
    low, high = np.percentile(margin, [0.5, 99.5])
    reach = max(abs(low), abs(high), 1e-6)
    # An edge lies at zero, so that no bar holds both right and wrong pairs.
    edges = np.linspace(-reach, reach, 41)
    counts, _ = np.histogram(np.clip(margin, -reach, reach), edges)
    centres = (edges[:-1] + edges[1:]) / 2
    colours = [WRONG if centre < 0 else RIGHT for centre in centres]
    axes.bar(centres, counts, width=edges[1] - edges[0], color=colours, edgecolor="white", linewidth=0.4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(metrics.margin, color=NEUTRAL, linewidth=1, linestyle="--")
    tops = axes.get_ylim()[1]
    axes.text(metrics.margin, tops * 0.99, f" mean {metrics.margin:.2f}", color=NEUTRAL, va="top", fontsize=9)
    axes.text(0.01, 0.97, "wrong", color=WRONG, transform=axes.transAxes, va="top", fontweight="bold")
    axes.text(
        0.99, 0.97, "right", color=RIGHT, transform=axes.transAxes, va="top", ha="right", fontweight="bold"
    )
    axes.set_xlabel("reward of the better response less reward of the worse")
    axes.set_ylabel("pairs")
    return figure


def _calibration(metrics: PairMetrics) -> Any:
    figure, axes = figure_of(
        "Calibration", f"expected calibration error {metrics.ece:.3f}, Brier {metrics.brier:.3f}"
    )
    axes.plot([0.5, 1], [0.5, 1], color=NEUTRAL, linewidth=1, linestyle="--", label="perfectly calibrated")
    largest = max(bin.num_pairs for bin in metrics.bins)
    confidence = [bin.confidence for bin in metrics.bins]
    accuracy = [bin.accuracy for bin in metrics.bins]
    area = [20 + 180 * bin.num_pairs / largest for bin in metrics.bins]
    axes.plot(confidence, accuracy, color=RIGHT, linewidth=1)
    axes.scatter(confidence, accuracy, s=area, color=RIGHT, zorder=3, label="pairs of a bin; area by number")
    lowest = min(0.5, *accuracy)
    for bin in metrics.bins:
        axes.annotate(
            f"{bin.num_pairs:,}",
            (bin.confidence, bin.accuracy),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=NEUTRAL,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(lowest - 0.08, 1.05)
    axes.set_xlabel("confidence: sigmoid of the absolute margin")
    axes.set_ylabel("accuracy")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def _accuracies(metrics: PairMetrics, parts: Mapping[str, Interval], title: str) -> Any:
    figure, axes = figure_of(
        f"Pair accuracy by {title}", "bars: 95 % interval", height=1.6 + 0.42 * (len(parts) + 1)
    )
    rows = {"all": metrics.accuracy, **parts}
    for place, (name, part) in enumerate(rows.items()):
        colour = NEUTRAL if name == "all" else RIGHT
        axes.plot(
            [part.low, part.high],
            [place, place],
            color=colour,
            linewidth=3,
            alpha=0.45,
            solid_capstyle="butt",
        )
        axes.plot([part.value], [place], marker="o", color=colour, markersize=7)
        axes.annotate(
            f"{part.value:.3f}  ({part.num_pairs:,} pairs)",
            (part.high, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.axvline(0.5, color=NEUTRAL, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [label_of(name, 28) for name in rows])
    axes.invert_yaxis()
    axes.margins(y=0.12)
    lowest = min(0.5, *(part.low for part in rows.values()))
    axes.set_xlim(lowest - 0.03, 1.28)
    axes.set_xticks([tick / 10 for tick in range(10, -1, -1) if tick / 10 >= lowest - 0.03])
    axes.set_xlabel("pair accuracy (0.5 is chance)")
    return figure
