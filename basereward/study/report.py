"""A study's report: tables as Markdown and LaTeX, one HTML page with the plots, and the plots."""

from __future__ import annotations

import html as escaping
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.evaluation.benchmarks.page import STYLE, picture
from basereward.study import plots
from basereward.study.tables import Findings, Table

if TYPE_CHECKING:
    from basereward.study.definition import Study
    from basereward.study.results import Results, RunResult

TABLE_FILE, LATEX_FILE, PAGE_FILE = "table.md", "table.tex", "report.html"


def write_report(study: Study, results: Results, directory: Path) -> Findings:
    """Write the tables, the page and the plots, and return the numbers of the tables."""
    findings = Findings.of(study, results)
    drawn = plots.save(study, results, findings, directory)
    tables = {column: findings.difference_table(column) for column in study.columns}
    tables = {column: table for column, table in tables.items() if table.rows}
    notes = findings.notes()
    failed = [run for run in results.runs if run.error]
    (directory / TABLE_FILE).write_text(
        _markdown(study, findings, tables, notes, failed, [path.relative_to(directory) for path in drawn]),
        encoding="utf-8",
    )
    latex = [f"% {study.title}", findings.table().latex()]
    latex += [line for table in tables.values() for line in ("", table.latex())]
    (directory / LATEX_FILE).write_text("\n".join(latex) + "\n", encoding="utf-8")
    (directory / PAGE_FILE).write_text(_page(study, findings, tables, notes, failed, drawn), encoding="utf-8")
    return findings


def _markdown(
    study: Study,
    findings: Findings,
    tables: Mapping[str, Table],
    notes: list[str],
    failed: list[RunResult],
    drawn: list[Path],
) -> str:
    text = [f"# {study.title}", "", findings.table().markdown(), "", *(f"- {note}" for note in notes), ""]
    text += [f"![{path.stem}]({path.as_posix()})\n" for path in drawn]
    text += [line for table in tables.values() for line in (table.markdown(), "")]
    if failed:
        text += [f"## Without a result: {len(failed)}", ""]
        text += [f"- {run.row}, seed {run.seed}: {run.error}" for run in failed]
    return "\n".join(text).rstrip() + "\n"


def _page(
    study: Study,
    findings: Findings,
    tables: Mapping[str, Table],
    notes: list[str],
    failed: list[RunResult],
    drawn: list[Path],
) -> str:
    body = [f"<h1>{escaping.escape(study.title)}</h1>", f'<div class="wide">{findings.table().html()}</div>']
    body += ["<ul>", *(f"<li>{escaping.escape(note)}</li>" for note in notes), "</ul>", '<div class="plots">']
    body += [*map(picture, drawn), "</div>"]
    for column, table in tables.items():
        title = f"Differences from the baseline: {column}"
        body += [f"<h2>{escaping.escape(title)}</h2>", f'<div class="wide">{table.html()}</div>']
    if failed:
        lines = [f"<li>{escaping.escape(f'{run.row}, seed {run.seed}: {run.error}')}</li>" for run in failed]
        body += [f"<h2>Without a result: {len(failed)}</h2>", "<ul>", *lines, "</ul>"]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escaping.escape(study.title)}</title><style>{STYLE}</style></head>\n<body>"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
