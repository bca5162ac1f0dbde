"""Save an evaluation: its numbers, a report as Markdown, plots, and the error gallery."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import ConfigError, DataError
from basereward.evaluation import error_gallery
from basereward.evaluation.metrics import PairMetrics
from basereward.evaluation.results import Evaluation, Unread
from basereward.reporting.html import Header, save_page
from basereward.reporting.plots import save_figures
from basereward.reporting.tables import Row, Table, markdown_code, markdown_text
from basereward.stats.interval import Interval
from basereward.storage.atomic import replace_file, write_text
from basereward.storage.reading import parse_json, read_lines, understood

if TYPE_CHECKING:
    from basereward.paradigms.verdicts import Verdicts

EXPLANATION = (
    "In brackets: the 95 % interval (Wilson). Where several pairs come from one comparison, it is that of "
    "the effective number of independent pairs."
)

NUM_LISTED = 20
"""Number of rejected rows in the report; `rejected.jsonl` has all."""


def save_report(
    evaluation: Evaluation, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the report of an evaluation, its plots and the error gallery.

    The files: `report.json`, `report.md`, `report.html`, `rewards.jsonl`, `rejected.jsonl`, `plots/*.png`,
    `wrong.html`, `wrong.png`; of an ensemble `members/NAME/rewards.jsonl`.

    Args:
        evaluation: The evaluation.
        directory: The directory to write; made if it isn't there, files in it are replaced.
        facts: Further entries of the report, such as model and data.
    """
    directory, facts = Path(directory), dict(facts or {})
    directory.mkdir(parents=True, exist_ok=True)
    paths = save_figures(evaluation.figures(), directory / "plots")
    error_gallery.save_html(evaluation.wrong, directory / "wrong.html", facts)
    _save_page(evaluation, directory, facts, paths)
    error_gallery.save_image(evaluation.wrong, directory / "wrong.png")
    plot_paths = [path.relative_to(directory).as_posix() for path in paths]
    text = markdown(evaluation, {**facts, **evaluation.statistics}, plot_paths)
    write_text(directory / "report.md", text, errors="backslashreplace")
    save_numbers(evaluation, directory, facts)


def save_numbers(
    evaluation: Evaluation, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the machine-readable files of a report: `report.json`, `rewards.jsonl`, `rejected.jsonl`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_lines(directory / "rewards.jsonl", (result.to_dict() for result in evaluation.results))
    _write_lines(directory / "rejected.jsonl", map(rejected_row, evaluation.rejected))
    if evaluation.verdicts:
        save_verdicts(evaluation.verdicts, directory)
    for name, member in evaluation.members.items():
        path = directory / "members" / name / "rewards.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_lines(path, (result.to_dict() for result in member.results))
    # Last, so that a directory with a report.json has all other files too.
    content = json.dumps({**(facts or {}), **evaluation.to_dict()}, indent=2, ensure_ascii=False)
    write_text(directory / "report.json", content + "\n")


def save_unread(unread: Unread, directory: str | Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write the report of a judge in whose answers no verdict could be read: `report.json`, `report.md`,
    `verdicts.jsonl`, and a `rewards.jsonl` without a line.
    """
    directory, facts = Path(directory), dict(facts or {})
    directory.mkdir(parents=True, exist_ok=True)
    text = ["# Evaluation", "", f"No comparison has rewards: {markdown_text(unread.reason)}.", ""]
    lines = {**facts, "comparisons": unread.num_comparisons, **unread.statistics}
    text += [f"- {markdown_text(name)}: {markdown_code(str(value))}" for name, value in lines.items()]
    write_text(directory / "report.md", "\n".join(text) + "\n", errors="backslashreplace")
    _write_lines(directory / "rewards.jsonl", ())
    save_verdicts(unread.verdicts, directory)
    content = json.dumps({**facts, **unread.to_dict()}, indent=2, ensure_ascii=False)
    write_text(directory / "report.json", content + "\n")


VERDICTS_FILE = "verdicts.jsonl"


def save_verdicts(verdicts: Mapping[int, Verdicts], directory: Path) -> None:
    """Write a judge's verdicts, a comparison a line."""
    lines = (
        {
            "number": number,
            "verdicts": [
                {"first": first, "second": second, "votes": votes}
                for (first, second), votes in by_order.items()
            ],
        }
        for number, by_order in verdicts.items()
    )
    _write_lines(directory / VERDICTS_FILE, lines)


def read_verdicts(directory: Path) -> dict[int, Verdicts]:
    """Return the verdicts that `save_verdicts` wrote; none where it wrote none.

    Raises:
        ConfigError: When they can't be read.
    """
    path = directory / VERDICTS_FILE
    if not os.path.lexists(path):
        return {}
    with understood(path, ConfigError):
        entries = [parse_json(line.decode("utf-8")) for _, line in read_lines(path)]
        return {
            int(entry["number"]): {
                (int(item["first"]), int(item["second"])): tuple(item["votes"]) for item in entry["verdicts"]
            }
            for entry in entries
        }


def metric_rows(metrics: PairMetrics) -> list[Row]:
    """Return the table's rows: name, value, and a note on how to read it."""
    top1 = metrics.top1
    rows = [
        _interval_row("pair accuracy", metrics.accuracy),
        *(_part(f"ratings {gap:g} or more apart", part) for gap, part in metrics.by_gap.items()),
    ]
    if len(metrics.by_source) > 1:
        rows += [_part(name or "(no source)", part) for name, part in metrics.by_source.items()]
    rows += [_part(name or "(no category)", part) for name, part in metrics.by_category.items()]
    rows += [
        Row.of("top-1 accuracy", str(top1), f"of {top1.num_pairs:,}; chance {metrics.top1_chance:.3f}"),
        Row.of("always the longer response", str(metrics.longer_baseline), "knows lengths only"),
        *_by_length(metrics),
        Row.of("margin", f"{metrics.margin:.3f} ± {metrics.margin_std:.3f}", "mean ± deviation"),
        Row.of("AUC across prompts", f"{metrics.auc:.3f}", "any better above any worse"),
        Row.of("calibration error (ECE)", f"{metrics.ece:.3f}", "0 is best"),
        Row.of("temperature", f"{metrics.temperature:.3g}", "rewards over it are the best log-odds"),
        Row.of("ECE at the temperature", f"{metrics.fitted_ece:.3f}", "0 is best"),
        Row.of("Brier score", f"{metrics.brier:.3f}", "0 is best, 0.25 is chance"),
        Row.of("log loss", f"{metrics.log_loss:.3f}", "0 is best, 0.693 is chance"),
    ]
    if metrics.num_label_ties:
        rows.append(Row.of("ties in the data", f"{metrics.num_label_ties:,}", "pairs left out"))
    rows.append(Row.of("tie rate", f"{metrics.tie_rate:.3f}", "pairs of equal reward, which count half"))
    return rows


def metric_table(evaluation: Evaluation) -> Table:
    """Return the table of metrics, with the members of an ensemble and their disagreement."""
    accuracy, *others = metric_rows(evaluation.metrics)
    members = [
        _part(f"member {name}", member.metrics.accuracy) for name, member in evaluation.members.items()
    ]
    if evaluation.disagreement is not None:
        value = f"{evaluation.disagreement:.3g}"
        members.append(Row.of("members' disagreement", value, "mean deviation over members", style="part"))
    return Table(["metric", "value", ""], [accuracy, *members, *others], num_labels=3)


def markdown(evaluation: Evaluation, facts: Mapping[str, Any], plot_paths: Iterable[str]) -> str:
    """Return the report as Markdown, with plots at paths relative to it."""
    rejected = evaluation.rejected
    text = ["# Evaluation", ""]
    text += [f"- {markdown_text(name)}: {markdown_code(str(value))}" for name, value in facts.items()]
    text += ["", metric_table(evaluation).markdown(), "", EXPLANATION, ""]
    text += [f"![{path}]({path})" for path in plot_paths]
    text += ["", "## Most wrong", ""]
    text += (
        [
            f"The {len(evaluation.wrong)} comparisons with the most negative margin: "
            "[wrong.html](wrong.html).",
            "",
            "![wrong.png](wrong.png)",
        ]
        if evaluation.wrong
        else ["No pair is ordered wrongly."]
    )
    text += ["", f"## Rejected rows: {len(rejected)}", ""]
    text += [f"- {markdown_code(str(error))}" for error in rejected[:NUM_LISTED]]
    if len(rejected) > NUM_LISTED:
        text.append(f"- and {len(rejected) - NUM_LISTED} more in [rejected.jsonl](rejected.jsonl)")
    return "\n".join(text).rstrip() + "\n"


def _save_page(
    evaluation: Evaluation, directory: Path, facts: Mapping[str, Any], plot_paths: Sequence[Path]
) -> None:
    """Write `report.html`, which needs no other file."""
    accuracy = evaluation.metrics.accuracy
    caption = (
        f"pair accuracy, 95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %, "
        f"of {accuracy.num_pairs:,} pairs"
    )
    save_page(
        directory / "report.html",
        "evaluation.html",
        Header({**facts, **evaluation.statistics}, f"{100 * accuracy.value:.1f} %", caption),
        metrics=metric_table(evaluation),
        explanation=EXPLANATION,
        plots=plot_paths,
        cards=error_gallery.page_cards(evaluation.wrong),
        marks=error_gallery.MARKS,
        rejected=list(map(str, evaluation.rejected[:NUM_LISTED])),
        num_rejected=len(evaluation.rejected),
    )


def rejected_row(error: DataError) -> dict[str, Any]:
    """Return the line of `rejected.jsonl` for a row that could not be used."""
    return {"file": error.file, "line": error.line, "field": error.field, "reason": error.reason}


def _by_length(metrics: PairMetrics) -> list[Row]:
    parts = {"where longer is better": metrics.where_longer, "where shorter is better": metrics.where_shorter}
    rows = [_part(name, part) for name, part in parts.items() if part is not None]
    rows += [_part(f"better is {name}", part) for name, part in metrics.by_length.items()]
    if metrics.length_correlation is not None:
        value = f"{metrics.length_correlation:+.3f}"
        rows.append(Row.of("reward and length", value, "correlation", style="part"))
    return rows


def _part(name: str, interval: Interval) -> Row:
    return _interval_row(name, interval, "part")


def _interval_row(name: str, interval: Interval, style: str = "") -> Row:
    effective = round(interval.num_effective)
    worth = f", worth {effective:,}" if effective < interval.num_pairs else ""
    return Row.of(name, str(interval), f"{interval.num_pairs:,} pairs{worth}", style=style)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replace_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
