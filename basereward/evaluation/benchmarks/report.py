"""Save a benchmark run: its numbers, Markdown, and one HTML page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from basereward.evaluation.benchmarks.plots import save_scores
from basereward.evaluation.benchmarks.run import BenchmarkRun
from basereward.evaluation.report import metric_rows, save_report, save_unread
from basereward.evaluation.results import Evaluation, Unread
from basereward.reporting.html import save_page
from basereward.reporting.tables import Row, Table, markdown_code, markdown_text
from basereward.storage.atomic import write_text

SCORES_FILE = "scores.png"

HEADINGS = {"official": "Official metrics", "category": "By category", "variant": "Variants in print"}

EXPLANATION = (
    "In brackets: the 95 % interval, by Wilson's formula with the number of independent pairs that would "
    "tell as much, or by bootstrap of groups. Longer baseline: the score of always preferring the longer "
    "response. Always first: that of always preferring the one that stands first in the file. Chance: the "
    "expected score of random rewards."
)


def save_run(run: BenchmarkRun, directory: str | Path) -> None:
    """Write `report.json`, `report.md`, `report.html`, and for each model a directory of its evaluation."""
    directory = Path(directory)
    for entry in run.entries:
        facts = {"model": entry.model, "benchmark": run.name, "data": run.data, **entry.computed}
        if isinstance(entry.evaluation, Unread):
            save_unread(entry.evaluation, directory / entry.folder, facts)
        else:
            save_report(entry.evaluation, directory / entry.folder, facts)
    plot = directory / SCORES_FILE if run.metric_names else None
    if plot is not None:
        save_scores(run, plot)
    published, remarks = published_table(run)
    save_page(
        directory / "report.html",
        "benchmark.html",
        run=run,
        plot=plot,
        scores=score_table(run),
        explanation=EXPLANATION,
        published=published if run.published else None,
        remarks=remarks,
        metrics=facts_table(run),
        plots={
            entry.model: sorted((directory / entry.folder / "plots").glob("*.png")) for entry in run.entries
        },
    )
    text = markdown(run)
    write_text(directory / "report.md", text, errors="backslashreplace")
    content = json.dumps(run.to_dict(), indent=2, ensure_ascii=False)
    # Last, so that a directory with a report.json has all other files too.
    write_text(directory / "report.json", content + "\n")


def score_table(run: BenchmarkRun) -> Table:
    """Return the table of scores, with a heading for each kind of metric."""
    baselines = ("longer baseline", *(["always first"] if run.orders_responses else []), "chance")
    titles = ("metric", *(entry.model for entry in run.entries), *baselines, "n", "interval")
    rows = []
    for kind, heading in HEADINGS.items():
        names = [name for name in run.metric_names if run.of_metric(name)[0].kind == kind]
        if names:
            rows.append(Row.of(heading, style="heading"))
        for name in names:
            first = run.of_metric(name)[0]
            # One number, unless a model could not score everything.
            sizes = dict.fromkeys(f"{score.num:,}" for score in run.of_metric(name))
            scores = (entry.scores.get(name) for entry in run.entries)
            rows.append(
                Row.of(
                    name,
                    *("" if score is None else str(score) for score in scores),
                    _percent(first.longer_baseline),
                    *([_percent(first.first_baseline)] if run.orders_responses else []),
                    _percent(first.chance),
                    f"{' / '.join(sizes)} {first.unit}",
                    first.method,
                    style=kind,
                )
            )
    return Table(titles, rows)


def published_table(run: BenchmarkRun) -> tuple[Table, list[str]]:
    """Return the table of published scores, and the remarks that its numbers in brackets refer to.

    The run's own models and the baselines come first. A corrected number has an asterisk.
    """
    columns = [name for name in run.metric_names if any(name in row.scores for row in run.published)]
    remarks: list[str] = []
    rows = []
    for entry in run.entries:
        scores = (entry.scores.get(name) for name in columns)
        rows.append(_own_row(entry.model, (None if score is None else score.value for score in scores)))
    firsts = [run.of_metric(name)[0] for name in columns]
    rows.append(_own_row("(always the longer response)", (score.longer_baseline for score in firsts)))
    if run.orders_responses:
        rows.append(_own_row("(always the first response)", (score.first_baseline for score in firsts)))
    rows.append(_own_row("(chance)", (score.chance for score in firsts)))
    for row in run.published:
        own_remarks = [row.source, *([row.note] if row.note else [])]
        own_remarks += [f"Printed: {_printed(row.printed)}."] if row.printed else []
        remarks += [remark for remark in own_remarks if remark not in remarks]
        cells = (
            "" if name not in row.scores else f"{row.scores[name]:.2f}" + "*" * (name in row.printed)
            for name in columns
        )
        marks = " ".join(f"[{remarks.index(remark) + 1}]" for remark in own_remarks)
        rows.append(Row.of(row.model, *cells, marks))
    return Table(("model", *columns, "source"), rows), remarks


def facts_table(run: BenchmarkRun) -> Table:
    """Return the table of accuracy, calibration and length bias of each model; blank without rewards."""
    columns = [
        {(row.style, row.texts[0]): row.texts for row in metric_rows(entry.evaluation.metrics)}
        if isinstance(entry.evaluation, Evaluation)
        else {}
        for entry in run.entries
    ]
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = (column[key][1] if key in column else "" for column in columns)
        note = next(column[key][2] for column in columns if key in column)
        if len(columns) > 1:  # the effective number of pairs differs from model to model
            note = note.partition(", worth")[0]
        style, name = key
        rows.append(Row.of(name, *values, note, style=style))
    return Table(("equal rewards count half", *(entry.model for entry in run.entries), ""), rows)


def markdown(run: BenchmarkRun) -> str:
    """Return the report as Markdown."""
    text = [f"# {markdown_text(run.title)}", "", f"- data: {markdown_code(run.data)}"]
    text += [*(f"- {markdown_text(note)}" for note in run.notes), ""]
    text += [score_table(run).markdown(), "", EXPLANATION, ""]
    if run.metric_names:
        text += [f"![{SCORES_FILE}]({SCORES_FILE})", ""]
    if run.published:
        table, remarks = published_table(run)
        text += ["## In print", "", table.markdown(), "", "\\* corrected", ""]
        text += [f"{number}. {markdown_text(remark)}" for number, remark in enumerate(remarks, start=1)]
        text += [""]
    text += ["## Lengths and calibration", "", facts_table(run).markdown(), ""]
    text += ["Rewards, plots and the most wrong comparisons:", ""]
    text += [
        f"- {markdown_text(entry.model)}: [{entry.folder}]({entry.folder}/report.md)" for entry in run.entries
    ]
    return "\n".join(text).rstrip() + "\n"


def _own_row(name: str, values: Iterable[float | None]) -> Row:
    return Row.of(name, *map(_percent, values), "here", style="own")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _printed(printed: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in printed.items())
