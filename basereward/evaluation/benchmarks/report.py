"""A benchmark's report for readers: Markdown, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html as escaping
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from basereward.evaluation.benchmarks.plots import save_scores
from basereward.evaluation.report import lines, save_report
from basereward.reporting.plots import is_available

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from basereward.evaluation.benchmarks.run import BenchmarkRun
    from basereward.stats.measure import Score

SCORES_FILE = "scores.png"

HEADINGS = {"official": "Official metrics", "category": "By category", "variant": "Variants in print"}

EXPLANATION = (
    "In brackets: the 95 % interval, by Wilson's formula with the number of independent pairs that would "
    "tell as much, or by bootstrap of groups. Longer wins: what always preferring the longer response scores "
    "by the same metric. Blind: what a judge that gives every response a random reward is expected to score."
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 76rem; }
body { padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.place, li, .note { color: #555; font-size: 13px; } ul { padding-left: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
td { font-variant-numeric: tabular-nums; } th { font-weight: 600; color: #555; font-size: 13px; }
tr.heading td { font-weight: 600; padding-top: 1.1rem; border-bottom: 2px solid #999; }
tr.official td.value { font-weight: 600; } tr.own td { background: #eef4fa; }
tr.part td:first-child { padding-left: 1.2rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1rem; }
.plots img { width: 100%; border: 1px solid #eee; } img.wide { width: 100%; max-width: 56rem; }
"""


def save_run(run: BenchmarkRun, directory: str | Path) -> None:
    """Write `report.json`, `report.md`, `report.html`, and for each model a directory of its evaluation.

    `report.html` needs no other file; its plots are drawn only where matplotlib is installed.
    """
    directory = Path(directory)
    for entry in run.entries:
        facts = {"model": entry.model, "benchmark": run.name, "data": run.data}
        save_report(entry.evaluation, directory / entry.folder, facts)
    (directory / "report.html").write_text(html(run, directory), encoding="utf-8")
    (directory / "report.md").write_text(markdown(run), encoding="utf-8")
    content = json.dumps(run.to_dict(), indent=2, ensure_ascii=False)
    # Last, so that a directory with a report.json has all other files too.
    (directory / "report.json").write_text(content + "\n", encoding="utf-8")


class Row(NamedTuple):
    """A line of a table: its cells, and how it is to look."""

    cells: tuple[str, ...]
    look: str = ""


def score_table(run: BenchmarkRun) -> tuple[tuple[str, ...], list[Row]]:
    """Return titles and lines of the table of scores; a line of one cell is a heading."""
    titles = ("metric", *(entry.model for entry in run.entries), "longer wins", "blind", "n", "interval")
    rows = []
    for kind, heading in HEADINGS.items():
        names = [name for name in run.metrics if run.of_metric(name)[0].kind == kind]
        if names:
            rows.append(Row((heading,), "heading"))
        for name in names:
            first = run.of_metric(name)[0]
            # One number, unless a model could not score everything.
            sizes = dict.fromkeys(f"{score.num:,}" for score in run.of_metric(name))
            cells = (
                name,
                *(_score(entry.scores.get(name)) for entry in run.entries),
                _percent(first.longest),
                _percent(first.chance),
                f"{' / '.join(sizes)} {first.unit}",
                first.method,
            )
            rows.append(Row(cells, kind))
    return titles, rows


def published_table(run: BenchmarkRun) -> tuple[tuple[str, ...], list[Row], list[str]]:
    """Return titles and lines of the table of what is in print, and the notes that its marks stand for.

    The run's own models and the baselines come first. A corrected number has an asterisk.
    """
    columns = [name for name in run.metrics if any(name in row.scores for row in run.published)]
    notes: list[str] = []
    rows = [
        Row((entry.model, *(_percent(_value(entry.scores.get(name))) for name in columns), "here"), "own")
        for entry in run.entries
    ]
    for label, attribute in (("(always the longer response)", "longest"), ("(a blind judge)", "chance")):
        values = (getattr(run.of_metric(name)[0], attribute) for name in columns)
        rows.append(Row((label, *map(_percent, values), "here"), "own"))
    for row in run.published:
        remarks = [row.source, *([row.note] if row.note else [])]
        remarks += [f"Printed: {_printed(row.printed)}."] if row.printed else []
        notes += [remark for remark in remarks if remark not in notes]
        cells = (
            "" if name not in row.scores else f"{row.scores[name]:.2f}" + "*" * (name in row.printed)
            for name in columns
        )
        marks = " ".join(f"[{notes.index(remark) + 1}]" for remark in remarks)
        rows.append(Row((row.model, *cells, marks)))
    return ("model", *columns, "source"), rows, notes


def facts_table(run: BenchmarkRun) -> tuple[tuple[str, ...], list[Row]]:
    """Return titles and lines of the table of what else is known of each model's rewards."""
    columns = [{line.name: line for line in lines(entry.evaluation.metrics)} for entry in run.entries]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = []
    for name in names:
        values = (column[name].value if name in column else "" for column in columns)
        note = next(column[name].note for column in columns if name in column)
        if len(columns) > 1:  # how many pairs they are worth differs from model to model
            note = note.partition(", worth")[0]
        rows.append(Row((name.strip(), *values, note), "part" if name.startswith(" ") else ""))
    return ("equal rewards count half", *(entry.model for entry in run.entries), ""), rows


def markdown(run: BenchmarkRun) -> str:
    """Return the report as Markdown."""
    text = [f"# {run.title}", "", f"- data: `{run.data}`", *(f"- {note}" for note in run.notes), ""]
    text += [*markdown_table(*score_table(run)), "", EXPLANATION, ""]
    if is_available():
        text += [f"![{SCORES_FILE}]({SCORES_FILE})", ""]
    if run.published:
        titles, rows, notes = published_table(run)
        text += ["## In print", "", *markdown_table(titles, rows), "", "\\* corrected", ""]
        text += [*(f"{number}. {note}" for number, note in enumerate(notes, start=1)), ""]
    text += ["## Lengths and calibration", "", *markdown_table(*facts_table(run)), ""]
    text += ["Rewards, plots and the most wrong comparisons:", ""]
    text += [f"- {entry.model}: [{entry.folder}]({entry.folder}/report.md)" for entry in run.entries]
    return "\n".join(text).rstrip() + "\n"


def html(run: BenchmarkRun, directory: Path) -> str:
    """Return the report as one page, the plots of the models' directories inlined.

    Args:
        run: The numbers.
        directory: Where each model's evaluation has been saved.
    """
    body = [f"<h1>{_safe(run.title)}</h1>", f'<p class="place">{_safe(run.data)}</p>', "<ul>"]
    body += [*(f"<li>{_safe(note)}</li>" for note in run.notes), "</ul>"]
    if is_available():
        save_scores(run, directory / SCORES_FILE)
        body.append(image(directory / SCORES_FILE, "wide"))
    body += ["<h2>Scores</h2>", _html_table(*score_table(run)), f'<p class="note">{EXPLANATION}</p>']
    if run.published:
        titles, rows, notes = published_table(run)
        body += ["<h2>In print</h2>", _html_table(titles, rows), '<p class="note">* corrected</p><ol>']
        body += [*(f"<li>{_safe(note)}</li>" for note in notes), "</ol>"]
    body += ["<h2>Lengths and calibration</h2>", _html_table(*facts_table(run))]
    for entry in run.entries:
        drawn = sorted((directory / entry.folder / "plots").glob("*.png"))
        if drawn:
            body += [
                f"<h2>Plots: {_safe(entry.model)}</h2>",
                '<div class="plots">',
                *map(image, drawn),
                "</div>",
            ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(run.title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>" + "\n".join(body) + "\n</body></html>\n"
    )


def _score(score: Score | None) -> str:
    return "" if score is None else str(score)


def _value(score: Score | None) -> float | None:
    return None if score is None else score.value


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _printed(printed: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in printed.items())


def markdown_table(titles: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Return the lines of a table, its first column to the left and all others to the right."""
    text = [f"| {' | '.join(map(_cell, titles))} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for row in rows:
        bold = [f"**{_cell(row.cells[0])}**"] if row.look == "heading" else list(map(_cell, row.cells))
        text.append(f"| {' | '.join([*bold, *[''] * (len(titles) - len(bold))])} |")
    return text


def _html_table(titles: Sequence[str], rows: Iterable[Row]) -> str:
    head = f"<tr>{''.join(f'<th>{_safe(title)}</th>' for title in titles)}</tr>" if titles else ""
    body = []
    for row in rows:
        if row.look == "heading":
            body.append(f'<tr class="heading"><td colspan="{len(titles)}">{_safe(row.cells[0])}</td></tr>')
            continue
        first, *others = row.cells
        cells = "".join(f'<td class="value">{_safe(cell)}</td>' for cell in others)
        body.append(f'<tr class="{row.look}"><td>{_safe(first)}</td>{cells}</tr>')
    return f'<div class="wide"><table>{head}{"".join(body)}</table></div>'


def image(path: Path, look: str = "") -> str:
    """Return a PNG file as an image within the page."""
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img class="{look}" alt="{_safe(path.stem)}" src="data:image/png;base64,{encoded}">'


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", " ")


def _safe(text: str) -> str:
    return escaping.escape(text)
