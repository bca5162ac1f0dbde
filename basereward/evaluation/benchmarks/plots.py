"""The plot of a benchmark run: each model's scores with their intervals, beside the baselines."""

from __future__ import annotations

from pathlib import Path

from basereward.evaluation.benchmarks.run import BenchmarkRun
from basereward.reporting.plots import COLOURS, MARKERS, figure_of, label_of, save_figure

MAX_SCORES = 30
LEGEND_COLUMNS = 3


def save_scores(run: BenchmarkRun, path: Path) -> None:
    """Draw each model's scores with their intervals, beside those of the two baselines."""
    names = [name for name in run.metric_names if run.of_metric(name)[0].kind != "variant"][:MAX_SCORES]
    step = 1 / (len(run.entries) + 1)
    height = 1.5 + 0.34 * len(names) * (1 + step) + 0.25 * (len(run.entries) // LEGEND_COLUMNS)
    figure, axes = figure_of(run.title, "bars: 95 % interval", width=9.0, height=height)
    for number, entry in enumerate(run.entries):
        # A judge may have the numbers of some protocols only.
        score_at = {place: entry.scores[name] for place, name in enumerate(names) if name in entry.scores}
        scores = list(score_at.values())
        places = [place + step * (number - (len(run.entries) - 1) / 2) for place in score_at]
        colour = COLOURS[number % len(COLOURS)]
        axes.hlines(
            places,
            [100 * score.low for score in scores],
            [100 * score.high for score in scores],
            color=colour,
            linewidth=3,
            alpha=0.4,
        )
        style = {"linestyle": "none", "marker": MARKERS[number % len(MARKERS)], "color": colour}
        axes.plot([100 * score.value for score in scores], places, label=label_of(entry.model), **style)
    first = [run.of_metric(name)[0] for name in names]
    baselines = {
        ("longer baseline", "|"): [score.longer_baseline for score in first],
        ("chance", "x"): [score.chance for score in first],
    }
    for (label, marker), shares in baselines.items():
        points = [(100 * share, place) for place, share in enumerate(shares) if share is not None]
        if points:
            mark = {"color": "black", "linestyle": "none", "marker": marker, "markersize": 8, "zorder": 3}
            axes.plot(*zip(*points, strict=True), label=label, **mark)
    axes.set_yticks(range(len(names)), [label_of(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent")
    # Below the plot, where names of any length have room.
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=9)
    save_figure(figure, path)
