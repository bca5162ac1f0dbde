"""No text of the data becomes part of a page: each page with markup in every text that it shows."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from written_down import WrittenDown

from basereward import Comparison, DataError
from basereward.data.report import Sample
from basereward.data.report import save_report as save_dataset_report
from basereward.data.statistics import Statistics
from basereward.evaluation import evaluate, save_report
from basereward.evaluation.benchmarks.comparisons import Comparisons
from basereward.evaluation.benchmarks.published import PublishedScores
from basereward.evaluation.benchmarks.report import save_run
from basereward.evaluation.benchmarks.run import run_benchmark
from basereward.stats.metric import unit_mean
from basereward.study.report import write_report
from basereward.study.results import Columns, Results, RunResult
from basereward.study.spec import Study

FILE_NAME = """<img src=x onerror="a('b')">.png"""
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "ol", "li", "div"),
    *("header", "main", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "article", "img"),
    *("span", "i", "b", "figure", "figcaption", "svg", "rect", "text", "script"),
}
PARTS = ("prompt", "response", "id", "source", "category", "model", "data", "title", "error", "note")


def hostile(part: str) -> str:
    """Return a text that names its part and would do harm in HTML, Markdown or a plot's formula."""
    return f"""{part} </p></td><script>alert("{part}")</script> 'q' & <b onclick='x'>$\\frac$ `` <u>"""


class Reader(html.parser.HTMLParser):
    """Reads a page's tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.num_scripts = 0
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.num_scripts += tag == "script"
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Comparison]:
    Pillow.new("RGB", (64, 32), "red").save(tmp_path / FILE_NAME)
    return [
        Comparison(
            hostile("prompt"),
            [f"{hostile('response')} {number}", f"b {1 - number}"],
            images=[tmp_path / FILE_NAME],
            ranks=[1, 2],
            id=hostile("id"),
            source=f"{hostile('source')} {number}",
            meta={"category": f"{hostile('category')} {number}"},
        )
        for number in range(2)
    ]


def gallery(comparisons: list[Comparison], directory: Path) -> tuple[Path, set[str]]:
    evaluation = evaluate(WrittenDown(), comparisons)
    save_report(evaluation, directory, {"model": hostile("model")})
    return directory / "wrong.html", {"prompt", "response", "id", "model"}


def benchmark(comparisons: list[Comparison], directory: Path) -> tuple[Path, set[str]]:
    path = directory / "rows.jsonl"
    rows = [
        {"id": row.id, "prompt": "p", "responses": row.responses, "ranks": row.ranks, "meta": dict(row.meta)}
        for row in comparisons
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    models = {hostile("model"): WrittenDown()}
    run = run_benchmark(Comparisons(path), models, name="comparisons", data=hostile("data"))
    published = PublishedScores("P", "s", {"pair accuracy": 50.0}, note=hostile("note"))
    save_run(replace(run, title=hostile("title"), published=[published]), directory)
    return directory / "report.html", {"category", "model", "data", "title", "note"}


def dataset(comparisons: list[Comparison], directory: Path) -> tuple[Path, set[str]]:
    statistics, sample = Statistics(), Sample()
    for row in [*comparisons, DataError(hostile("error"), file=FILE_NAME, line=1)]:
        statistics.add(row)
        sample.add(row)
    save_dataset_report(directory / "page.html", hostile("title"), statistics, sample)
    return directory / "page.html", {"prompt", "response", "id", "source", "title", "error"}


def study(comparisons: list[Comparison], directory: Path) -> tuple[Path, set[str]]:
    label = hostile("model")
    grid = Study(
        title=hostile("title"),
        output=str(directory),
        run={},
        axes={"axis": {label: {}}},
        baseline={"axis": label},
        notes=(hostile("note"),),
    )
    columns = Columns()
    value = columns.add("held-out pairs", label, 0, unit_mean(np.ones(2), np.arange(2), np.zeros(2)))
    runs = [
        RunResult(label, {"axis": label}, 0, {"held-out pairs": value}, {}),
        RunResult(label, {"axis": label}, 1, {}, {}, hostile("error")),
    ]
    write_report(grid, Results(runs, columns.units, columns.unit_scores, {}), directory)
    return directory / "report.html", {"title", "model", "note", "error"}


def evaluation(comparisons: list[Comparison], directory: Path) -> tuple[Path, set[str]]:
    rows = [*comparisons, Comparison("p", ["a 0"], id=hostile("error"))]
    save_report(
        evaluate(WrittenDown(), rows), directory, {"model": hostile("model"), "data": hostile("data")}
    )
    return directory / "report.html", {
        "prompt",
        "response",
        "id",
        "source",
        "category",
        "model",
        "data",
        "error",
    }


PAGES = [gallery, benchmark, dataset, study, evaluation]


@pytest.mark.parametrize("make", PAGES)
def test_a_page_shows_every_text_and_none_of_its_markup(
    make: Callable[[list[Comparison], Path], tuple[Path, set[str]]],
    comparisons: list[Comparison],
    tmp_path: Path,
) -> None:
    path, parts = make(comparisons, tmp_path)
    page = Reader(path.read_text(encoding="utf-8"))
    assert page.tags <= TAGS
    assert page.num_scripts == 1  # ours, which is the same on every page
    assert {name for name in page.attributes if name.startswith("on")} == set()
    assert all(source.startswith("data:image/") for source in page.attributes.get("src", ()))
    assert {part for part in PARTS if hostile(part) in page.text} == parts
    if make in (gallery, dataset):
        assert FILE_NAME in page.attributes["alt"]


@pytest.mark.parametrize("make", [gallery, benchmark, study, evaluation])
def test_a_report_in_markdown_holds_no_markup_of_the_data(
    make: Callable[[list[Comparison], Path], tuple[Path, set[str]]],
    comparisons: list[Comparison],
    tmp_path: Path,
) -> None:
    make(comparisons, tmp_path)
    for path in tmp_path.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        # Within a code span Markdown knows no HTML; its fence is longer than any run of backticks within.
        text = re.sub(r"(?<!`)```(?!`).*?(?<!`)```(?!`)", "", text)
        assert "<script" not in text
        assert "<b onclick" not in text
        assert "&lt;script>" in text


def test_a_text_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    rows = [Comparison("p", ["\ud800 0", "b 1"], ranks=[0, 1])]
    save_report(evaluate(WrittenDown(), rows), tmp_path)
    assert "\\ud800 0" in (tmp_path / "wrong.html").read_text(encoding="utf-8")
