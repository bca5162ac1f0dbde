"""A study's report: tables as Markdown and LaTeX, one HTML page with the plots, and the plots."""

from __future__ import annotations

import html as escaping
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.evaluation.benchmarks.report import STYLE, image
from basereward.study import plots
from basereward.study.tables import Findings, Table

if TYPE_CHECKING:
    from basereward.study.results import Results
    from basereward.study.spec import Study

TABLE_FILE, LATEX_FILE, PAGE_FILE = "table.md", "table.tex", "report.html"


def write_report(study: Study, results: Results, directory: Path) -> Findings:
    """Write the tables, the page and the plots, and return the numbers of the tables."""
    findings = Findings.of(study, results)
    drawn = plots.save(study, results, findings, directory)
    tables = {column: findings.difference_table(column) for column in study.columns}
    tables = {column: table for column, table in tables.items() if table.rows}
    text = _markdown(findings, tables, [path.relative_to(directory) for path in drawn])
    (directory / TABLE_FILE).write_text(text, encoding="utf-8")
    latex = [f"% {study.title}", findings.table().latex()]
    latex += [line for table in tables.values() for line in ("", table.latex())]
    (directory / LATEX_FILE).write_text("\n".join(latex) + "\n", encoding="utf-8")
    (directory / PAGE_FILE).write_text(_page(findings, tables, drawn), encoding="utf-8")
    return findings


def _failed(findings: Findings) -> list[str]:
    """Return a line for each run that has no result."""
    return [f"{run.row}, seed {run.seed}: {run.error}" for run in findings.results.runs if run.error]


def _markdown(findings: Findings, tables: Mapping[str, Table], drawn: Sequence[Path]) -> str:
    text = [f"# {findings.study.title}", "", findings.table().markdown(), ""]
    text += [*(f"- {note}" for note in findings.notes()), ""]
    text += [f"![{path.stem}]({path.as_posix()})\n" for path in drawn]
    text += [line for table in tables.values() for line in (table.markdown(), "")]
    if failed := _failed(findings):
        text += [f"## Without a result: {len(failed)}", "", *(f"- {line}" for line in failed)]
    return "\n".join(text).rstrip() + "\n"


def _page(findings: Findings, tables: Mapping[str, Table], drawn: Sequence[Path]) -> str:
    title = escaping.escape(findings.study.title)
    body = [f"<h1>{title}</h1>", _wide(findings.table()), *_list(findings.notes())]
    body += ['<div class="plots">', *map(image, drawn), "</div>"]
    for column, table in tables.items():
        body += [f"<h2>{escaping.escape(f'Differences from the baseline: {column}')}</h2>", _wide(table)]
    if failed := _failed(findings):
        body += [f"<h2>Without a result: {len(failed)}</h2>", *_list(failed)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>" + "\n".join(body) + "\n</body></html>\n"
    )


def _wide(table: Table) -> str:
    return f'<div class="wide">{table.html()}</div>'


def _list(lines: Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escaping.escape(line)}</li>" for line in lines), "</ul>"]
