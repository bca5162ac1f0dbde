"""Save an evaluation: its numbers, a report as Markdown, plots, and the error gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from basereward.evaluation import error_gallery, plots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from basereward.errors import DataError
    from basereward.evaluation.metrics import Metrics
    from basereward.evaluation.results import Evaluation
    from basereward.stats.interval import Interval

NUM_LISTED = 20
"""Rejected rows that the report shows; `rejected.jsonl` has all."""


def save_report(
    evaluation: Evaluation, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the report of an evaluation, its plots and the error gallery.

    The files: `report.json`, `report.md`, `rewards.jsonl`, `rejected.jsonl`, `plots/*.png`, `wrong.html`,
    `wrong.png`; of an ensemble `members/NAME/rewards.jsonl`. Without matplotlib there are no plots, and
    `report.md` says so.

    Args:
        evaluation: The evaluation.
        directory: The directory to write; made if it isn't there, files in it are replaced.
        facts: Further entries of the report, such as model and data.
    """
    directory, facts = Path(directory), dict(facts or {})
    directory.mkdir(parents=True, exist_ok=True)
    paths = plots.save(evaluation.metrics, evaluation.pairs, directory / "plots")
    error_gallery.save_html(evaluation.wrong, directory / "wrong.html")
    error_gallery.save_image(evaluation.wrong, directory / "wrong.png")
    text = markdown(
        lines_of(evaluation),
        evaluation.rejected,
        {**facts, **evaluation.statistics},
        [path.relative_to(directory).as_posix() for path in paths],
        len(evaluation.wrong),
    )
    (directory / "report.md").write_text(text, encoding="utf-8")
    save_numbers(evaluation, directory, facts)


def save_numbers(
    evaluation: Evaluation, directory: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the machine-readable files of a report: `report.json`, `rewards.jsonl`, `rejected.jsonl`.

    Args:
        evaluation: The evaluation.
        directory: As of `save_report`.
        facts: As of `save_report`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_lines(directory / "rewards.jsonl", (result.to_dict() for result in evaluation.results))
    _write_lines(directory / "rejected.jsonl", map(rejected_row, evaluation.rejected))
    for name, member in evaluation.members.items():
        path = directory / "members" / name / "rewards.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_lines(path, (result.to_dict() for result in member.results))
    # Last, so that a directory with a report.json has all other files too.
    content = json.dumps({**(facts or {}), **evaluation.to_dict()}, indent=2, ensure_ascii=False)
    (directory / "report.json").write_text(content + "\n", encoding="utf-8")


class Line(NamedTuple):
    """One line of the table."""

    name: str
    value: str
    note: str = ""


def lines(metrics: Metrics) -> list[Line]:
    """Return the table: what, how much, and of how many or how to read it."""
    found = [Line("pair accuracy", str(metrics.accuracy), _of_pairs(metrics.accuracy))]
    found += [
        Line(f"  ratings {gap:g} or more apart", str(part), _of_pairs(part))
        for gap, part in metrics.by_gap.items()
    ]
    if len(metrics.by_source) > 1:
        found += [
            Line(f"  {name or '(no source)'}", str(part), _of_pairs(part))
            for name, part in metrics.by_source.items()
        ]
    found += [
        Line(f"  {name or '(no category)'}", str(part), _of_pairs(part))
        for name, part in metrics.by_category.items()
    ]
    top1, chance = metrics.top1, metrics.top1_chance
    found.append(Line("top-1 accuracy", str(top1), f"of {top1.num_pairs:,}; blindly {chance:.3f}"))
    found += [
        Line("always the longer response", str(metrics.longer), "knows lengths only"),
        *_by_length(metrics),
        Line(
            "margin",
            f"{metrics.margin:.3f} ± {metrics.margin_std:.3f}",
            "mean ± deviation",
        ),
        Line("AUC across prompts", f"{metrics.auc:.3f}", "any better above any worse"),
        Line("calibration error (ECE)", f"{metrics.ece:.3f}", "0 is best"),
        Line("Brier score", f"{metrics.brier:.3f}", "0 is best, 0.25 is blind"),
        Line("log loss", f"{metrics.log_loss:.3f}", "0 is best, 0.693 is blind"),
    ]
    if metrics.num_label_ties:
        found.append(Line("ties in the data", f"{metrics.num_label_ties:,}", "pairs left out"))
    if metrics.num_reward_ties:
        found.append(Line("ties in reward", f"{metrics.num_reward_ties:,}", "pairs that count half"))
    return found


def lines_of(evaluation: Evaluation) -> list[Line]:
    """Return the table, with the members of an ensemble and how far they are apart after the accuracy."""
    first, *others = lines(evaluation.metrics)
    members = [
        Line(f"  member {name}", str(part := member.metrics.accuracy), _of_pairs(part))
        for name, member in evaluation.members.items()
    ]
    if evaluation.disagreement is not None:
        value = f"{evaluation.disagreement:.3g}"
        members.append(Line("  members' disagreement", value, "mean deviation over members"))
    return [first, *members, *others]


def markdown(
    table: Iterable[Line],
    rejected: Sequence[DataError],
    facts: Mapping[str, Any],
    drawn: Iterable[str],
    num_wrong: int,
) -> str:
    """Return the report as Markdown.

    Args:
        table: What `lines_of` gives.
        rejected: Rows that could not be used.
        facts: What else to say, such as model and data.
        drawn: Paths of the plots, relative to the report.
        num_wrong: Comparisons on the sheet of the most wrong ones.
    """
    text = ["# Evaluation", ""]
    text += [f"- {name}: `{value}`" for name, value in facts.items()]
    text += ["", "| metric | value | |", "|---|---|---|"]
    text += [f"| {_cell(line.name)} | {line.value} | {_cell(line.note)} |" for line in table]
    text += [
        "",
        "In brackets: the 95 % interval (Wilson). Where several pairs come from one comparison, it is that "
        "of the number of independent pairs that would tell as much.",
        "",
    ]
    drawn = list(drawn)
    text += [f"![{path}]({path})" for path in drawn] or [
        "No plots: matplotlib is not installed (`basereward[plot]`)."
    ]
    text += ["", "## Most wrong", ""]
    text += (
        [
            f"The {num_wrong} comparisons with the most negative margin: [wrong.html](wrong.html).",
            "",
            "![wrong.png](wrong.png)",
        ]
        if num_wrong
        else ["No pair is ordered wrongly."]
    )
    text += ["", f"## Rejected rows: {len(rejected)}", ""]
    text += [f"- `{str(error).replace('`', chr(39))}`" for error in rejected[:NUM_LISTED]]
    if len(rejected) > NUM_LISTED:
        text.append(f"- and {len(rejected) - NUM_LISTED} more in [rejected.jsonl](rejected.jsonl)")
    return "\n".join(text).rstrip() + "\n"


def rejected_row(error: DataError) -> dict[str, Any]:
    """Return the line of `rejected.jsonl` for a row that could not be used."""
    return {"file": error.file, "line": error.line, "field": error.field, "reason": error.reason}


def _by_length(metrics: Metrics) -> list[Line]:
    found = []
    if metrics.longer_right is not None:
        part = metrics.longer_right
        found.append(Line("  where longer is better", str(part), _of_pairs(part)))
    if metrics.longer_wrong is not None:
        part = metrics.longer_wrong
        found.append(Line("  where shorter is better", str(part), _of_pairs(part)))
    found += [
        Line(f"  where the better is {name}", str(part), _of_pairs(part))
        for name, part in metrics.by_length.items()
    ]
    if metrics.length_correlation is not None:
        note = "correlation"
        found.append(Line("  reward and length", f"{metrics.length_correlation:+.3f}", note))
    return found


def _of_pairs(interval: Interval) -> str:
    effective = round(interval.num_effective)
    return f"{interval.num_pairs:,} pairs" + (
        f", worth {effective:,}" if effective < interval.num_pairs else ""
    )


def _cell(text: str) -> str:
    # Markdown drops the spaces that set the parts of a number off from it.
    indented = text.startswith(" ")
    plain = text.strip().replace("|", "\\|").replace("\n", " ")
    return f"– {plain}" if indented else plain


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
