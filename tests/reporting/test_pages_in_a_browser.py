"""The pages in a browser: as wide as a screen and a phone, light and dark, folded, sorted, filtered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from PIL import Image as Pillow
from written_down import WrittenDown

from basereward import Comparison
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

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(chromium.program() is None, reason="no chromium; apt-get install chromium"),
    # The pipe's ends are handed to the browser by a function between fork and exec.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

LONG = "runs/a-name-that-is-as-long-as-those-of-real-runs-often-are/model"
WIDTHS = (1280, 390)
PAGES = ("benchmark", "evaluation", "gallery", "dataset", "study")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a page of each kind, with names and numbers as wide as they are in use."""
    root = tmp_path_factory.mktemp("pages")
    Pillow.new("RGB", (900, 600), "red").save(root / "red.png")
    rows = [
        Comparison(
            f"What is in image {number}? {LONG}",
            [f"{'a very long answer ' * 20} {number % 5}", f"{'word' * 60} {4 - number % 5}"],
            images=[root / "red.png"],
            ranks=[1, 2],
            source=f"source-{number % 15}",
            meta={"category": f"category {number % 14}"},
        )
        for number in range(60)
    ]
    save_report(evaluate(WrittenDown(), rows), root / "evaluation", {"model": LONG, "data": LONG})

    file = root / "rows.jsonl"
    lines = (
        {"prompt": "p", "responses": row.responses, "ranks": [1, 2], "meta": dict(row.meta)} for row in rows
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    models = {f"{LONG}-{number}": WrittenDown() for number in range(3)}
    run = run_benchmark(Comparisons(file), models, name="comparisons", data=LONG)
    name = run.metric_names[0]
    published = [PublishedScores(f"Published {number}", LONG, {name: 50.0 + number}) for number in range(20)]
    save_run(replace(run, published=published), root / "benchmark")

    statistics, sample = Statistics(), Sample()
    for row in rows:
        statistics.add(row)
        sample.add(row)
    save_dataset_report(root / "dataset.html", LONG, statistics, sample)

    study = Study(title="A study", output=LONG, run={}, axes={"axis": {LONG: {}}}, baseline={"axis": LONG})
    columns = Columns()
    value = columns.add("held-out pairs", LONG, 0, unit_mean(np.ones(2), np.arange(2), np.zeros(2)))
    result = RunResult(LONG, {"axis": LONG}, 0, {"held-out pairs": value}, {})
    write_report(study, Results([result], columns.units, columns.unit_scores, {}), root / "study")
    return {
        "benchmark": root / "benchmark" / "report.html",
        "evaluation": root / "evaluation" / "report.html",
        "gallery": root / "evaluation" / "wrong.html",
        "dataset": root / "dataset.html",
        "study": root / "study" / "report.html",
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_the_screen(
    name: str, width: int, pages: dict[str, Path], browser: chromium.Page, tmp_path: Path
) -> None:
    browser.screenshot(width, 900)  # which sets the size
    browser.open(pages[name].as_uri())
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    taken = browser.screenshot(width, 900)
    (tmp_path / f"{name}-{width}.png").write_bytes(taken)
    with Pillow.open(BytesIO(taken)) as image:
        assert image.size == (width, 900)
        colours = image.convert("L").getcolors()
    assert len(colours) > 2


def facts(browser: chromium.Page) -> dict[str, str]:
    found: list[list[str]] = browser.run(
        "[...document.querySelectorAll('header dl div')]"
        ".map(row => [...row.children].map(own => own.textContent))"
    )
    return {name: value for name, value in found}


def test_the_header_says_what_was_evaluated_and_the_main_number(
    pages: dict[str, Path], browser: chromium.Page
) -> None:
    browser.open(pages["evaluation"].as_uri())
    assert facts(browser).keys() >= {"model", "data", "date", "version"}
    assert facts(browser)["model"] == LONG
    headline = browser.run("document.querySelector('.headline').textContent.trim()")
    # The last word of each response is its reward: the better one has the larger in 24 of 60 rows (number % 5
    # is 3 or 4), and as large a one in 12 (number % 5 is 2), which count half: 30 / 60.
    assert headline.startswith("50.0 % pair accuracy, 95 % interval ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_follows_the_colours_of_the_system(
    scheme: str, pages: dict[str, Path], browser: chromium.Page
) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        browser.open(pages["evaluation"].as_uri())
        colour = browser.run("getComputedStyle(document.body).backgroundColor")
    finally:
        browser.call("Emulation.setEmulatedMedia", features=[])
    levels = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (max(levels) < 60) == (scheme == "dark")


def visible(browser: chromium.Page, selector: str) -> int:
    number: int = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})]"
        ".filter(row => row.offsetParent !== null).length"
    )
    return number


def test_categories_are_folded_until_their_heading_is_clicked(
    pages: dict[str, Path], browser: chromium.Page
) -> None:
    browser.open(pages["benchmark"].as_uri())
    assert visible(browser, "tr.official") > 0
    assert visible(browser, "tbody.folded tr.category") == 0
    browser.run("document.querySelector('tbody.folded .heading button').click()")
    assert visible(browser, "tbody.folded tr.category") == 14


def column(browser: chromium.Page, number: int) -> list[str]:
    found: list[str] = browser.run(
        "[...document.querySelector('main > .table table').tBodies].flatMap(body => [...body.rows])"
        f".map(row => row.cells[{number}].textContent)"
    )
    return found


def test_a_table_is_sorted_by_the_column_that_is_clicked_and_filtered_by_a_word(
    pages: dict[str, Path], browser: chromium.Page
) -> None:
    browser.open(pages["dataset"].as_uri())
    names = [f"source-{number}" for number in range(15)]
    click = "document.querySelectorAll('main > .table th button')[0].click()"
    browser.run(click)
    assert column(browser, 0)[:15] == sorted([*names, "all of them"])[:15]
    browser.run(click)
    assert column(browser, 0)[0] == "source-9"
    browser.run(
        """(() => {
            const input = document.querySelector("input[type=search]");
            input.value = "source-1";
            input.dispatchEvent(new Event("input"));
        })()"""
    )
    # source-1 and source-10 to source-14
    assert visible(browser, "main > .table tbody tr") == 6


def test_an_image_is_enlarged_by_a_click(pages: dict[str, Path], browser: chromium.Page) -> None:
    browser.open(pages["gallery"].as_uri())
    browser.run("document.querySelector('article img').click()")
    size: list[Any] = browser.run(
        "(() => { const own = document.querySelector('dialog[open] img'); "
        "return [own.naturalWidth, own.naturalHeight]; })()"
    )
    assert size == [900, 600]  # the card shows it 240 pixels wide
