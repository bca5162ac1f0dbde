"""Save curves of overoptimization: numbers, Markdown, a plot, and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basereward.evaluation.overoptimization import MODEL, Curve, Overoptimization, kl_of
from basereward.reporting.html import Header, save_page
from basereward.reporting.plots import COLOURS, NEUTRAL, figure_of, label_of, save_figure
from basereward.reporting.tables import Row, Table, markdown_code, markdown_text
from basereward.stats.seeds import PairedDifference
from basereward.storage.atomic import write_text

PLOT_FILE = "overoptimization.png"


def save_overoptimization(
    result: Overoptimization, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write `report.json`, `report.md`, `report.html`, and the plot.

    Args:
        result: The curves.
        directory: The directory to write; made if it isn't there, files in it are replaced.
        facts: Further entries of the report, such as the models and the data.
    """
    directory, facts = Path(directory), dict(facts or {})
    directory.mkdir(parents=True, exist_ok=True)
    plot = _save_plot(result, directory / "plots" / PLOT_FILE)
    table, notes = curve_table(result), curve_notes(result)
    header = Header(facts, f"{result.num_prompts:,}", "prompts")
    context = {"table_of": table, "notes": notes, "plot": plot}
    save_page(directory / "report.html", "overoptimization.html", header, **context)
    text = ["# Overoptimization", ""]
    text += [f"- {markdown_text(name)}: {markdown_code(str(value))}" for name, value in facts.items()]
    text += ["", table.markdown(), "", *(f"- {markdown_text(note)}" for note in notes)]
    text += ["", f"![plots/{PLOT_FILE}](plots/{PLOT_FILE})"]
    write_text(directory / "report.md", "\n".join(text) + "\n", errors="backslashreplace")
    content = json.dumps({**facts, **result.to_dict()}, indent=2, ensure_ascii=False)
    write_text(directory / "report.json", content + "\n")


def curve_table(result: Overoptimization) -> Table:
    """Return the table of gains, a row for each curve and n."""
    rows = []
    for name, curve in result.curves.items():
        rows += [
            Row.of(name, str(num), f"{kl_of(num):.3f}", _shown(curve.proxy[num]), _shown(curve.gold[num]))
            for num in result.sizes
        ]
    return Table(("reward chosen by", "n", "KL", "gain of it", "gain of the gold reward"), rows)


def curve_notes(result: Overoptimization) -> list[str]:
    """Return what the curves say."""
    notes = [
        f"{result.num_prompts:,} prompts, {len(result.rejected):,} left out. Gains are over a single draw, "
        "in standard deviations of each reward within prompts, with 95 % intervals over prompts."
    ]
    notes += [f"By {name}: {_verdict(curve, result.sizes[-1])}" for name, curve in result.curves.items()]
    notes += [
        f"{name} in place of a single member, at n = {result.sizes[-1]}: {_shown(part)} of gold reward, "
        f"p {part.adjusted:.2g} (Holm)."
        for name, part in result.against_members.items()
    ]
    notes += [
        f"{name}: the gold reward is highest at a KL of {delay.value:+.2f} ({delay.low:+.2f} to "
        f"{delay.high:+.2f}, bootstrap over prompts) from where its members' is on average."
        for name, delay in result.delays.items()
    ]
    return notes


def _verdict(curve: Curve, largest: int) -> str:
    if curve.fall is None:
        return f"the gold reward is highest at n = {largest}, the largest; no overoptimization is seen."
    seen = "overoptimization" if curve.fall.is_significant else "which may be chance"
    return (
        f"the gold reward is highest at n = {curve.peak} and lower by {-curve.fall.value:.3f} at "
        f"n = {largest}, p {curve.fall.adjusted:.2g} (Holm): {seen}."
    )


def _shown(part: PairedDifference) -> str:
    return f"{part.value:+.3f} ({part.low:+.3f} to {part.high:+.3f})"


def _save_plot(result: Overoptimization, path: Path) -> Path:
    """Draw proxy and gold reward against KL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = figure_of("Overoptimization", "dashed: the reward chosen by; solid: gold, 95 %", width=8)
    places = [kl_of(num) for num in result.sizes]
    for number, (name, curve) in enumerate(result.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        gold, proxy = curve.gold.values(), curve.proxy.values()
        axes.plot(places, [part.value for part in gold], "o-", color=colour, label=label_of(name))
        axes.plot(places, [part.value for part in proxy], "--", color=colour, linewidth=1)
        if name == MODEL:
            lows, highs = [part.low for part in gold], [part.high for part in gold]
            axes.fill_between(places, lows, highs, color=colour, alpha=0.15)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_xlabel("KL = ln n - (n - 1) / n")
    axes.set_ylabel("gain over a single draw, spreads")
    axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, path)
