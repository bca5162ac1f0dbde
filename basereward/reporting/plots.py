"""Figures in one style, without pyplot: it would choose a backend for the whole process."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

RIGHT, WRONG, NEUTRAL, GRID = "#2a6f97", "#c8553d", "#6c757d", "#dddddd"
COLOURS = (RIGHT, WRONG, "#6a994e", "#7b5ea7", "#b5838d", "#8d6e00")
SIZE = (6.4, 4.0)  # inches
DPI = 120


def is_available() -> bool:
    """Tell whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def figure_of(title: str, subtitle: str, width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Any, Any]:
    """Return a figure in our style, and its axes; sizes are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(subtitle, loc="left", fontsize=9, color=NEUTRAL)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure, and return its path."""
    figure.savefig(path)
    return path
