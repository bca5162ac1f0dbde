"""A study's report: tables as Markdown and LaTeX, one HTML page with the plots, and the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from basereward.errors import ConfigError
from basereward.reporting.html import Header, save_page
from basereward.reporting.tables import Table, markdown_text
from basereward.storage.atomic import write_text
from basereward.storage.outputs import check_outside_models, claim_directory
from basereward.study import plots
from basereward.study.results import RESULTS_FILE, UNIT_SCORES_FILE, Results
from basereward.study.spec import Study
from basereward.study.tables import StudyTables

TABLE_FILE, LATEX_FILE, PAGE_FILE = "table.md", "table.tex", "report.html"


MARK_FILE = ".basereward-study"
"""Marks the directory of a study's results."""

OWN_NAMES = (RESULTS_FILE, UNIT_SCORES_FILE, TABLE_FILE, LATEX_FILE, PAGE_FILE, plots.PLOTS)


def claim(directory: Path, option: str) -> None:
    """Make and mark a directory for the results of a study, unless it holds others' files of their names.

    A directory whose results can be read is a study's, and needs no mark.

    Args:
        directory: The directory.
        option: The option that names it.

    Raises:
        ConfigError: When the files there may be somebody else's.
    """
    check_outside_models(directory, option)
    with suppress(ConfigError):
        Results.load(directory)
        return
    claim_directory(directory, option, mark=MARK_FILE, names=OWN_NAMES)


def write_report(study: Study, results: Results, directory: Path) -> StudyTables:
    """Write the tables, the page and the plots, and return the numbers of the tables."""
    tables = StudyTables.of(study, results)
    scores = tables.table()
    differences = {column: tables.difference_table(column) for column in study.columns}
    differences = {column: table for column, table in differences.items() if table.rows}
    failed = [f"{run.row}, seed {run.seed}: {run.error}" for run in results.runs if run.error]
    plot_paths = plots.save(study, results, tables, directory)
    text = _markdown(tables, differences, failed, [path.relative_to(directory) for path in plot_paths])
    write_text(directory / TABLE_FILE, text)
    latex = [f"% {' '.join(study.title.splitlines())}", scores.latex()]
    latex += [line for table in differences.values() for line in ("", table.latex())]
    write_text(directory / LATEX_FILE, "\n".join(latex) + "\n")
    save_page(
        directory / PAGE_FILE,
        "study.html",
        Header({}, str(len(results.runs)), f"trainings, {len(failed)} of them without a result"),
        title=study.title,
        scores=scores,
        notes=tables.notes(),
        plots=plot_paths,
        differences=differences,
        failed=failed,
    )
    return tables


def _markdown(
    tables: StudyTables, differences: Mapping[str, Table], failed: Sequence[str], plot_paths: Sequence[Path]
) -> str:
    text = [f"# {markdown_text(tables.study.title)}", "", tables.table().markdown(), ""]
    text += [*(f"- {markdown_text(note)}" for note in tables.notes()), ""]
    text += [f"![{path.stem}]({path.as_posix()})\n" for path in plot_paths]
    text += [line for table in differences.values() for line in (table.markdown(), "")]
    if failed:
        text += [f"## Without a result: {len(failed)}", "", *(f"- {markdown_text(line)}" for line in failed)]
    return "\n".join(text).rstrip() + "\n"
