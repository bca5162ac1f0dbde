"""Save an audit: its numbers, Markdown, plots, and one HTML page that needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basereward.evaluation.audit.findings import FLIPS, LOSS, MATERIAL, Finding
from basereward.evaluation.audit.prompt_edits import ABLATIONS, IMAGE_CHANGES
from basereward.evaluation.audit.response_edits import SHORTCUTS, TEXT_CHANGES
from basereward.evaluation.audit.results import Audit
from basereward.evaluation.report import rejected_row
from basereward.reporting.html import Header, save_page
from basereward.reporting.plots import save_figures
from basereward.reporting.tables import Row, Table, markdown_code, markdown_text
from basereward.stats.seeds import PairedDifference
from basereward.storage.atomic import write_text

EXPLANATION = (
    "In brackets: 95 % intervals. A spread is the standard deviation of rewards within pairs. Found: "
    "significant at 0.05 after Holm's correction over all findings, which bounds the chance of a single "
    f"false one, and material: {MATERIAL:g} spreads of reward, less than {LOSS:g} of accuracy lost, over "
    f"{FLIPS:g} of orders turned over. Clear: the interval excludes that. Undecided: neither; more rows tell."
)

RULES = {
    "ablations": {name: edit.rule for name, edit in ABLATIONS.items()},
    "shortcuts": {name: edit.rule for name, edit in SHORTCUTS.items()},
    "stability": {
        **{name: edit.rule for name, edit in TEXT_CHANGES.items()},
        **{name: edit.rule for name, edit in IMAGE_CHANGES.items()},
        "batch": "a pair alone, beside one in a batch and in a tree with its edits",
        "order": "the responses are in the other order",
        "precision": "the other of fp32 and bf16",
    },
}
"""What each trial does, by the part of the audit."""


def save_audit(audit: Audit, directory: str | Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write `report.json`, `report.md`, `report.html`, `rejected.jsonl` and `plots/*.png`.

    Args:
        audit: The audit.
        directory: The directory to write; made if it isn't there, files in it are replaced.
        facts: Further entries of the report, such as model and data.
    """
    directory, facts = Path(directory), dict(facts or {})
    directory.mkdir(parents=True, exist_ok=True)
    drawn = save_figures(audit.figures(), directory / "plots")
    save_page(
        directory / "report.html",
        "audit.html",
        Header(
            facts,
            str(len(audit.flagged)),
            f"found, of {len(audit.findings)} that were looked for",
        ),
        flagged=audit.flagged,
        findings=finding_table(audit),
        tables=tables(audit),
        notes=notes(audit),
        explanation=EXPLANATION,
        plots=drawn,
    )
    text = markdown(audit, facts, [path.relative_to(directory).as_posix() for path in drawn])
    write_text(directory / "report.md", text, errors="backslashreplace")
    rejected = "".join(json.dumps(rejected_row(error), ensure_ascii=False) + "\n" for error in audit.rejected)
    write_text(directory / "rejected.jsonl", rejected, errors="backslashreplace")
    # Last, so that a directory with a report.json has all other files too.
    content = json.dumps({**facts, **audit.to_dict()}, indent=2, ensure_ascii=False)
    write_text(directory / "report.json", content + "\n")


def finding_table(audit: Audit) -> Table:
    """Return the table of findings, those that are found first."""
    rows = [
        Row.of(
            finding.state,
            finding.claim if finding.state == "found" else f"({finding.claim})",
            f"{finding.family}: {finding.name}",
            f"{finding} {finding.unit}",
            "" if finding.adjusted is None else f"{finding.adjusted:.2g}",
            f"{finding.num:,}",
            style="official" if finding.state == "found" else "",
        )
        for finding in audit.findings
    ]
    return Table(("state", "claim", "measure", "value", "p, corrected", "rows"), rows, num_labels=3)


def tables(audit: Audit) -> dict[str, Table]:
    """Return the tables of numbers, by heading."""
    parts = {
        "Ablations": _ablations(audit),
        "Shortcuts: what an edit buys at equal content": _shortcuts(audit),
        "Shortcuts: what goes with a feature at equal label": _slopes(audit),
        "Stability": _stability(audit),
        "Calibration": _calibration(audit),
        "Accuracy against coverage": _coverage(audit),
        "Cost": _costs(audit),
    }
    return {heading: table for heading, table in parts.items() if table.rows}


def _ablations(audit: Audit) -> Table:
    rows = [
        Row.of(
            name,
            RULES["ablations"][name],
            str(part.accuracy),
            _difference(part.loss),
            str(part.same_order),
            f"{part.accuracy.num_pairs:,}",
        )
        for name, part in audit.ablations.items()
    ]
    whole = Row.of("whole", "as it is", str(audit.metrics.accuracy), "", "", f"{audit.num_rows:,}")
    titles = ("ablation", "rule", "accuracy", "paired loss", "order is the same", "rows")
    return Table(titles, [whole, *rows], num_labels=2)


def _shortcuts(audit: Audit) -> Table:
    rows = [
        Row.of(
            name,
            RULES["shortcuts"][name],
            _difference(part.gain),
            _number(part.better),
            _number(part.worse),
            "" if part.turned is None else f"{part.turned.value:.3f}",
            f"{part.num:,}",
        )
        for name, part in audit.shortcuts.items()
    ]
    titles = ("edit", "rule", "gain in spreads", "on the better", "on the worse", "orders lost", "rows")
    return Table(titles, rows, num_labels=2)


def _slopes(audit: Audit) -> Table:
    rows = [
        Row.of(name, _difference(slope), f"{slope.p:.2g}") for name, slope in audit.slopes.of_feature.items()
    ]
    return Table(("feature", "spreads for a standard deviation more", "p"), rows)


def _stability(audit: Audit) -> Table:
    rows = [
        Row.of(
            name,
            RULES["stability"][name],
            str(part.flipped),
            f"{part.largest:.3g}",
            f"{part.mean:.3g}",
            f"{part.flipped.num_pairs:,}",
        )
        for name, part in audit.stability.items()
    ]
    titles = ("change", "rule", "flipped orders", "largest change, spreads", "mean change", "rows")
    return Table(titles, rows, num_labels=2)


def _calibration(audit: Audit) -> Table:
    metrics = audit.metrics
    rows = [
        Row.of("calibration error (ECE)", f"{metrics.ece:.3f}", "0 is best"),
        Row.of("Brier score", f"{metrics.brier:.3f}", "0 is best, 0.25 is chance"),
        Row.of("log loss", f"{metrics.log_loss:.3f}", "0 is best, 0.693 is chance"),
        Row.of("temperature", f"{audit.temperature:.3g}", "rewards over it are the best log-odds"),
    ]
    if audit.confidence is not None:
        note = "a pair in the right order has the larger margin; 0.5 is chance"
        rows.append(Row.of("margins tell right from wrong", str(audit.confidence), note))
    return Table(("measure", "value", ""), rows, num_labels=3)


def _coverage(audit: Audit) -> Table:
    rows = [
        Row.of(f"{share:.0%}", str(part), f"{part.num_pairs:,}") for share, part in audit.coverage.items()
    ]
    return Table(("pairs with the largest margins", "accuracy", "pairs"), rows)


def _costs(audit: Audit) -> Table:
    once = audit.once
    rows = [
        Row.of(
            name,
            f"{cost.num_forests:,}",
            f"{cost.num_responses:,}",
            f"{cost.num_tokens:,}",
            f"{cost.num_tokens / once.num_tokens:.2f}"
            if once.num_tokens
            else f"{cost.num_responses / max(1, once.num_responses):.2f}",
        )
        for name, cost in {**audit.costs, "in all": audit.total, "the pairs once": once}.items()
    ]
    return Table(("part", "forward passes of a tree", "responses", "tokens", "times scoring once"), rows)


def notes(audit: Audit) -> list[str]:
    """Return what a reader has to know beside the tables."""
    unit = "tokens" if audit.once.num_tokens else "responses"
    lines = [
        f"{audit.num_rows:,} of {audit.num_read:,} rows, one pair of each: its best response and one of its "
        f"worst. {len(audit.rejected):,} rows and trials could not be used.",
        f"The audit takes {audit.times_once:.1f} times the {unit} of scoring the pairs once.",
    ]
    if (failure := audit.shortcut_failure) is not None:
        parts = {"is right": failure.right, "is wrong": failure.wrong}
        shares = [
            f"{part} where it {where} ({part.num_pairs:,} pairs)"
            for where, part in parts.items()
            if part is not None
        ]
        gap = "" if math.isnan(failure.degradation) else f"; the gap is {failure.degradation:.3f}"
        lines.append(
            f"By a model of text alone ({failure.text_model}), accuracy is {', and '.join(shares)}{gap} "
            "(shortcut-failure degradation, arXiv 2503.03122)."
        )
    if "image out" in audit.ablations:
        same = audit.ablations["image out"].same_order
        lines.append(f"The order of {same} of the pairs with images does not need them.")
    if not math.isnan(audit.slopes.explained):
        lines.append(f"Features explain {audit.slopes.explained:.3f} of the variance of margins (R²).")
    if audit.slopes.too_rare:
        lines.append(f"Too rare in these responses for a slope: {', '.join(audit.slopes.too_rare)}.")
    names_of: dict[str, list[str]] = {}
    for name, reason in audit.skipped.items():
        names_of.setdefault(reason, []).append(name)
    lines += [f"Not measured: {', '.join(names)}; {reason}." for reason, names in names_of.items()]
    return lines


def advice_lines(findings: list[Finding]) -> list[str]:
    """Return what to do, a line for each finding that is found."""
    return [f"{finding.claim} ({finding.family}: {finding.name}). {finding.advice}" for finding in findings]


def markdown(audit: Audit, facts: Mapping[str, Any], plot_paths: list[str]) -> str:
    """Return the report as Markdown, with plots at paths relative to it."""
    text = ["# Audit", ""]
    text += [f"- {markdown_text(name)}: {markdown_code(str(value))}" for name, value in facts.items()]
    text += ["", f"## Found: {len(audit.flagged)}", ""]
    text += [f"- The model {line}" for line in map(markdown_text, advice_lines(audit.flagged))] or [
        "Nothing was found."
    ]
    text += ["", "## Findings", "", finding_table(audit).markdown(), "", EXPLANATION, ""]
    text += [f"- {markdown_text(line)}" for line in notes(audit)]
    for heading, table in tables(audit).items():
        text += ["", f"## {heading}", "", table.markdown()]
    text += ["", *(f"![{path}]({path})" for path in plot_paths)]
    return "\n".join(text).rstrip() + "\n"


def _difference(between: PairedDifference) -> str:
    return f"{between.value:+.3f} ({between.low:+.3f} to {between.high:+.3f})"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.3f}"
