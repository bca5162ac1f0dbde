"""The course of a training as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basereward.engine.run_directory import LOG_FILE, PLOTS

COURSE = "training.png"


def draw_course(run_dir: Path, *, warn: Callable[[str], None] = lambda text: None) -> Path | None:
    """Draw loss, accuracy and learning rates over the steps of `log.jsonl` into `plots/training.png`.

    Args:
        run_dir: The run directory.
        warn: Takes the line that says that matplotlib is not installed; nothing is drawn then.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warn("matplotlib is not installed: no plots; pip install 'basereward[plot]' brings it")
        return None
    lines = (run_dir / LOG_FILE).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
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
    rate.set_xlabel("optimiser step")
    for axes in (loss, accuracy, rate):
        axes.grid(visible=True, alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(run_dir.name)
    path = run_dir / PLOTS / COURSE
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _line(axes: Any, records: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    """Draw what is known of a value over the steps."""
    known = [record for record in records if record.get(name) is not None]
    if known:
        steps = [record["step"] for record in known]
        axes.plot(steps, [record[name] for record in known], label=label, **style)
