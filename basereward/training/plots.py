"""Plots of training curves, of one run or of several runs to compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError
from basereward.reporting.plots import (
    COLOURS,
    DPI,
    LINES,
    MARKERS,
    NEUTRAL,
    RIGHT,
    WRONG,
    label_of,
    save_figure,
    style_axes,
)
from basereward.storage.atomic import replace_file
from basereward.training.log_history import (
    HELD_OUT,
    Axis,
    check_metrics,
    read_histories,
    read_records,
    smoothed,
)
from basereward.training.run_directory import LOG_FILE, PLOTS

TRAINING_PLOT = "training.png"

METRICS = ("loss", "accuracy", f"{HELD_OUT}accuracy", "lr", "pairs_per_second")
"""The metrics that `basereward plot` draws by default."""

TITLES = {
    "loss": "loss",
    "accuracy": "accuracy in training",
    f"{HELD_OUT}accuracy": "held-out accuracy",
    "lr": "learning rate",
    "pairs_per_second": "pairs a second",
    "tokens_per_second": "tokens a second",
    "mfu": "share of the peak (MFU)",
}
AXES = {"steps": "optimizer step", "pairs": "pairs", "seconds": "seconds"}

COLUMNS = 2

GENERATOR = "BaseReward"
"""Stands in the images of `save_runs`, by which they are known."""

GENERATORS = {"png": "Software", "svg": "Creator", "pdf": "Creator"}
"""The names of the entry that says in each format what has made an image."""


def plot_run(run_dir: Path) -> Path:
    """Plot loss, accuracy and learning rates by step, from `log.jsonl` to `plots/training.png`.

    Args:
        run_dir: The run directory.
    """
    from matplotlib.figure import Figure

    records = read_records(run_dir / LOG_FILE)
    steps = [record for record in records if record["kind"] == "step"]
    evaluations = [record for record in records if record["kind"] == "evaluation"]

    # A figure of its own, not pyplot's: nothing global, no window system.
    figure = Figure(figsize=(7.0, 8.0), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    _line(loss, steps, "loss", "training", color=RIGHT)
    _line(accuracy, steps, "accuracy", "training", color=RIGHT)
    if evaluations:
        _line(loss, evaluations, "log_loss", "held out (log loss)", marker="o", color=WRONG)
        _line(accuracy, evaluations, "accuracy", "held out", marker="o", color=WRONG)
        steps_of = [record["step"] for record in evaluations]
        low, high = ([record[name] for record in evaluations] for name in ("low", "high"))
        accuracy.fill_between(steps_of, low, high, alpha=0.15, color=WRONG, label="95 % interval")
        best = max(evaluations, key=lambda record: (record["accuracy"], -record["log_loss"]))
        accuracy.plot(best["step"], best["accuracy"], "k*", label=f"best: {best['accuracy']:.3f}")
    loss.set_ylabel("loss")
    accuracy.set_ylabel("pair accuracy")
    accuracy.axhline(0.5, color=NEUTRAL, linewidth=0.8, linestyle="--", zorder=0)
    for number, part in enumerate(steps[0]["lr"] if steps else ()):
        at, rates = [record["step"] for record in steps], [record["lr"][part] for record in steps]
        rate.plot(at, rates, label=part, **_style(number, len(at)))
    rate.set_ylabel("learning rate")
    rate.set_xlabel("optimizer step")
    for axes in (loss, accuracy, rate):
        style_axes(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(label_of(run_dir.name), x=0.02, ha="left", fontsize=12, fontweight="bold")
    path = run_dir / PLOTS / TRAINING_PLOT
    path.parent.mkdir(exist_ok=True)
    return save_figure(figure, path, dpi=DPI)


def _line(axes: Any, records: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    """Draw a value by step, where there is one."""
    present = [record for record in records if record.get(name) is not None]
    if present:
        steps = [record["step"] for record in present]
        style = {"marker": MARKERS[0], **style} if len(present) == 1 else style
        axes.plot(steps, [record[name] for record in present], label=label, **style)


def _style(number: int, num_points: int) -> dict[str, Any]:
    """Return the style of a line among others; a single point has a mark, since no line goes through it."""
    style: dict[str, Any] = {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "linewidth": 1.4,
    }
    if num_points == 1:
        style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
    return style


def plot_runs(
    runs: Sequence[str | Path],
    *,
    metrics: Sequence[str] = (),
    axis: Axis = "steps",
    smoothing: float = 0.0,
) -> Any:
    """Return a matplotlib figure of several runs' metrics, with a line for each run.

    Args:
        runs: Run directories or their `log.jsonl`; of a run with stages, each stage is one.
        metrics: Numbers of the log, such as `grad_norm` or `lr.head`; of held-out data as
            `held-out.accuracy`. Loss, accuracies, learning rate and speed if none is given.
        axis: The x axis.
        smoothing: Weight of the moving average; if not 0, the values themselves are drawn faintly.

    Raises:
        ConfigError: When a run has no log or no record, no run has a metric, or smoothing is not in [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ConfigError(f"smoothing is {smoothing:g}; allowed: from 0 up to, not including, 1")
    histories = read_histories([Path(run) for run in runs])
    if metrics:
        check_metrics(histories, metrics)
    else:  # not every run has held-out data
        there = {name for history in histories for name in history.metrics}
        metrics = [name for name in METRICS if name in there]
    if not metrics:
        raise ConfigError(f"{', '.join(map(str, runs))}: no record of a step yet, so nothing to draw")
    from matplotlib.figure import Figure

    num_rows = -(-len(metrics) // COLUMNS)
    num_columns = min(COLUMNS, len(metrics))
    # A line of the legend for each run, in as many columns as there are columns of plots.
    height = 2.6 * num_rows + 0.25 * -(-len(histories) // num_columns) + 0.4
    figure = Figure(figsize=(5.0 * num_columns, height), layout="constrained")
    plots = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True).flatten()
    for axes, metric in zip(plots, metrics, strict=False):
        for number, history in enumerate(histories):
            positions, values = history.series(metric, axis)
            style = _style(number, len(positions))
            if metric.startswith(HELD_OUT):
                style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 3.5}
            elif smoothing and not metric.startswith("lr"):  # a schedule has no noise
                axes.plot(positions, values, color=style["color"], linewidth=0.8, alpha=0.25)
                values = smoothed(values, smoothing)
            axes.plot(positions, values, label=history.name, **style)
        axes.set_title(TITLES.get(metric, metric), fontsize="medium", loc="left")
        style_axes(axes)
        if metric.startswith("lr"):
            axes.yaxis.set_major_formatter("{x:.3g}")
    for axes in plots[len(metrics) :]:
        axes.set_visible(False)
    for number, axes in enumerate(plots[: len(metrics)]):
        if number + num_columns >= len(metrics):
            axes.set_xlabel(AXES[axis])
            axes.tick_params(labelbottom=True)
    lines, names = plots[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper left", ncols=num_columns, frameon=False)
    return figure


def save_runs(figure: Any, output: Path) -> None:
    """Write the figure of `plot_runs` with a mark by which its files are known.

    Args:
        figure: The figure.
        output: The image file; its suffix decides on the format.

    Raises:
        ConfigError: When matplotlib knows no such format, or the file can't be written.
    """
    format = output.suffix.removeprefix(".") or "png"
    metadata = {GENERATORS[format]: GENERATOR} if format in GENERATORS else {}
    try:
        with replace_file(output) as aside:
            save_figure(figure, aside, dpi=DPI, format=format, metadata=metadata)
    except ValueError as error:
        raise ConfigError(f"--output {output}: {error}") from error
    except OSError as error:
        raise ConfigError(f"--output {output} can't be written: {error.strerror}") from error
