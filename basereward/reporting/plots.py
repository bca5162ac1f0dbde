"""Figures in one style, without pyplot: it would choose a backend for the whole process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RIGHT, WRONG, NEUTRAL, GRID = "#2a6f97", "#c8553d", "#6c757d", "#dddddd"
COLOURS = (RIGHT, WRONG, "#6a994e", "#7b5ea7", "#b5838d", "#8d6e00")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
"""Colours, markers and lines of what a plot compares, each for those who can't tell the others apart."""

SIZE = (6.4, 4.0)  # inches
DPI = 120
MAX_LABEL = 40  # characters; the labels of an axis take their room from its plot


def figure_of(title: str, subtitle: str, width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Any, Any]:
    """Return a figure in our style, and its axes; sizes are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(subtitle, loc="left", fontsize=9, color=NEUTRAL)
    style_axes(axes)
    return figure, axes


def style_axes(axes: Any) -> None:
    """Give axes our grid and frame."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def label_of(name: str, max_length: int = MAX_LABEL) -> str:
    """Return a name as a label of a plot, cut short."""
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


def save_figures(figures: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write figures as `NAME.png`, and return their paths; the directory is made if it isn't there."""
    directory.mkdir(parents=True, exist_ok=True)
    return [save_figure(figure, directory / f"{name}.png") for name, figure in figures.items()]


def save_figure(figure: Any, path: Path, **options: Any) -> Path:
    """Write a figure, and return its path.

    Names of models, data sets and categories are no formulas, whatever dollar signs they hold.

    Args:
        figure: The figure.
        path: The file; its suffix decides on the format.
        options: Options of `Figure.savefig`.

    Raises:
        ValueError: When matplotlib knows no such format.
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    # A format has the same bytes each time, and SVG keeps its text as text.
    settings = {"text.parse_math": False, "svg.hashsalt": "basereward", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure.savefig(path, **options)
    return path
