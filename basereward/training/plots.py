"""Plots of training curves, of one run or of several runs to compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError
from basereward.reporting.plots import DPI, save_figure
from basereward.storage.atomic import replace_file
from basereward.training.log_history import HELD_OUT, Axis, RunHistory, read_records, smoothed
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
"""Stands in the images of `plot_runs`, by which they are known."""

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
    _line(loss, steps, "loss", "training")
    _line(accuracy, steps, "accuracy", "training")
    if evaluations:
        _line(loss, evaluations, "log_loss", "held out (log loss)", marker="o")
        _line(accuracy, evaluations, "accuracy", "held out", marker="o", color="tab:orange")
        steps_of = [record["step"] for record in evaluations]
        low, high = ([record[name] for record in evaluations] for name in ("low", "high"))
        accuracy.fill_between(steps_of, low, high, alpha=0.15, color="tab:orange", label="95 % interval")
        best = max(evaluations, key=lambda record: (record["accuracy"], -record["log_loss"]))
        accuracy.plot(best["step"], best["accuracy"], "k*", label=f"best: {best['accuracy']:.3f}")
    loss.set_ylabel("loss")
    accuracy.set_ylabel("pair accuracy")
    accuracy.axhline(0.5, color="0.7", linewidth=0.8, linestyle="--", zorder=0)
    for part in steps[0]["lr"] if steps else ():
        rate.plot([record["step"] for record in steps], [record["lr"][part] for record in steps], label=part)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("optimizer step")
    for axes in (loss, accuracy, rate):
        axes.grid(visible=True, alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(run_dir.name)
    path = run_dir / PLOTS / TRAINING_PLOT
    path.parent.mkdir(exist_ok=True)
    return save_figure(figure, path, dpi=DPI)


def _line(axes: Any, records: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    """Draw a value by step, where there is one."""
    present = [record for record in records if record.get(name) is not None]
    if present:
        steps = [record["step"] for record in present]
        axes.plot(steps, [record[name] for record in present], label=label, **style)


def plot_runs(
    histories: Sequence[RunHistory], output: Path, *, metrics: Sequence[str], axis: Axis, smoothing: float
) -> None:
    """Plot metrics of several runs in one image, with a line for each run.

    Args:
        histories: The runs.
        output: The image file; its suffix decides on the format.
        metrics: The metrics, each with axes of its own.
        axis: The x axis that they share.
        smoothing: Weight of the moving average; if not 0, the values themselves are drawn faintly.

    Raises:
        ConfigError: When matplotlib knows no such format.
    """
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
            style: dict[str, Any] = {"color": f"C{number % 10}", "linewidth": 1.4}
            if metric.startswith(HELD_OUT):
                style |= {"marker": "o", "markersize": 3.5}
            elif smoothing and not metric.startswith("lr"):  # a schedule has no noise
                axes.plot(positions, values, color=style["color"], linewidth=0.8, alpha=0.25)
                values = smoothed(values, smoothing)
            axes.plot(positions, values, label=history.name, **style)
        axes.set_title(TITLES.get(metric, metric), fontsize="medium", loc="left")
        axes.grid(visible=True, alpha=0.3)
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
    format = output.suffix.removeprefix(".") or "png"
    metadata = {GENERATORS[format]: GENERATOR} if format in GENERATORS else {}
    try:
        with replace_file(output) as aside:
            save_figure(figure, aside, dpi=DPI, format=format, metadata=metadata)
    except ValueError as error:
        raise ConfigError(f"--output {output}: {error}") from error
    except OSError as error:
        raise ConfigError(f"--output {output} can't be written: {error.strerror}") from error
