"""A whole evaluation: what is counted, what is rejected, and what is left on disk."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image as Pillow

from basereward import Comparison, ConfigError, DataError
from basereward.data import read_comparisons
from basereward.evaluation import evaluate, save_report

if TYPE_CHECKING:
    from pathlib import Path


def comparison(*rewards: float, name: str = "", **more: Any) -> Comparison:
    """Return a comparison whose first response is the best, and whose rewards are the given ones."""
    texts = [f"{chr(97 + number)} {reward}" for number, reward in enumerate(rewards)]
    return Comparison("Which?", texts, **{"ranks": range(len(rewards)), "id": name, **more})


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_the_order_is_kept_while_like_lengths_share_a_batch(model: Any) -> None:
    comparisons = [comparison(number, 0, name=f"{number}", source="x" * number) for number in range(100)]
    long_first = [
        Comparison("Which? " * (100 - number), c.responses, ranks=c.ranks, id=c.id)
        for number, c in enumerate(comparisons)
    ]
    found = evaluate(model, iter(long_first), batch_size=4)
    assert [result.id for result in found.results] == [f"{number}" for number in range(100)]
    assert [result.rewards[0] for result in found.results] == list(range(100))
    assert model.scored[:64] == [f"{number}" for number in reversed(range(64))]
    assert set(model.batch_sizes) == {4}


def test_what_cannot_be_judged_or_scored_is_listed_with_its_reason(model: Any) -> None:
    rows = [
        comparison(1, 0, name="good"),
        comparison(1, name="alone"),
        comparison(1, 0, name="unranked", ranks=None),
        Comparison("p", ["a 1", "b!"], ranks=[0, 1], id="loud"),
    ]
    found = evaluate(model, rows)
    assert [result.id for result in found.results] == ["good"]
    assert [str(error) for error in found.rejected] == [
        "alone: responses: there is one response; two are needed to compare",
        "unranked: ranks: the comparison has no ranks, so no response is known to be better",
        "loud: responses: is too loud",
    ]
    assert "alone" not in model.scored


def test_every_row_of_a_file_is_scored_or_listed_with_file_and_line(model: Any, tmp_path: Path) -> None:
    good = {"prompt": "p", "responses": ["a 1", "b 0"], "ranks": [0, 1]}
    loud = {"prompt": "p", "responses": ["a 1", "b!"], "ranks": [0, 1]}
    file = write(tmp_path / "a.jsonl", good, "broken\n", loud, good, {**good, "ranks": None})
    dataset = read_comparisons(file)
    found = evaluate(model, dataset)
    assert len(found.results) == 2
    assert [(error.file, error.line) for error in found.rejected] == [(str(file), line) for line in (2, 3, 5)]
    assert found.to_dict()["num_rejected"] == 3

    dataset.on_bad_row = "fail"
    with pytest.raises(DataError, match=f"^{file}:2: is not JSON"):
        evaluate(model, dataset)
    strict = read_comparisons(write(tmp_path / "b.jsonl", good, loud))
    strict.on_bad_row = "fail"
    with pytest.raises(DataError, match=f"^{tmp_path}/b.jsonl:2: responses: is too loud$"):
        evaluate(model, strict)


def test_nothing_usable_is_an_error_that_tells_the_first_reason(model: Any) -> None:
    with pytest.raises(DataError) as error:
        evaluate(model, [comparison(1, name="alone"), comparison(2, name="too")])
    assert str(error.value) == (
        "there is nothing to evaluate: no pair of responses has a known order; 2 rows were rejected, "
        "the first: alone: responses: there is one response; two are needed to compare"
    )


def test_a_batch_has_at_least_one_comparison(model: Any) -> None:
    with pytest.raises(ConfigError) as error:
        evaluate(model, [comparison(1, 0)], batch_size=0)
    assert str(error.value) == "batch_size is a number of comparisons >= 1, not 0"


def test_the_most_wrong_are_kept_worst_first(model: Any) -> None:
    rows = [comparison(0, margin, name=f"{margin}") for margin in (1, 5, -2, 3, 4)]
    found = evaluate(model, rows, num_wrong=3)
    assert [wrong.result.id for wrong in found.wrong] == ["5", "4", "3"]
    assert [wrong.result.margin for wrong in found.wrong] == [-5, -4, -3]


@pytest.fixture
def saved(model: Any, tmp_path: Path) -> Path:
    Pillow.new("RGB", (640, 320), "red").save(tmp_path / "red.png")
    rows = [
        Comparison(
            "<image>What <b>is</b> it?",
            ["first <script>alert(1)</script> 1", "second 2", "third 0"],
            images=[tmp_path / "red.png"],
            ratings=[3, 1, 0],
            id="wrong & worse",
            source="a",
        ),
        comparison(3, 1, name="right", source="b"),
        comparison(1, name="alone"),
    ]
    found = evaluate(model, rows)
    save_report(found, tmp_path / "report", {"model": "m", "data": "d"})
    return tmp_path / "report"


def test_the_report_has_every_file_and_says_the_same_everywhere(saved: Path) -> None:
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("plots/")} == {
        *("report.json", "report.md", "rewards.jsonl", "rejected.jsonl", "wrong.html", "wrong.png"),
    }
    report = json.loads((saved / "report.json").read_text())
    # Pairs (0,1) wrong, (0,2) right, (1,2) right; and one right.
    assert {name: report[name] for name in ("model", "data", "accuracy", "num_pairs", "num_rejected")} == {
        **{"model": "m", "data": "d", "accuracy": 0.75, "num_pairs": 4, "num_rejected": 1}
    }
    assert report["low"] < 0.75 < report["high"]
    assert [json.loads(line) for line in (saved / "rewards.jsonl").read_text().splitlines()] == [
        {
            **{"id": "wrong & worse", "source": "a", "number": 0, "group": "", "margin": -1},
            **{"rewards": [1, 2, 0], "ranks": [0, 1, 2]},
        },
        {
            **{"id": "right", "source": "b", "number": 1, "group": "", "margin": 2},
            **{"rewards": [3, 1], "ranks": [0, 1]},
        },
    ]
    [rejected] = [json.loads(line) for line in (saved / "rejected.jsonl").read_text().splitlines()]
    assert rejected == {
        **{"file": "alone", "line": None, "field": "responses"},
        "reason": "there is one response; two are needed to compare",
    }
    text = (saved / "report.md").read_text()
    assert "| pair accuracy | 0.750 (" in text
    assert "- `alone: responses: there is one response; two are needed to compare`" in text


def test_every_plot_that_the_report_shows_is_an_image(saved: Path) -> None:
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (saved / "report.md").read_text())
    plotted = ["margins", "calibration", "accuracy_by_gap", "accuracy_by_source", "accuracy_by_length"]
    assert shown == [*(f"plots/{name}.png" for name in plotted), "wrong.png"]
    for name in shown:
        with Pillow.open(saved / name) as image:
            assert len(image.convert("L").getcolors()) > 2


def test_the_gallery_needs_no_other_file_and_runs_no_text_of_the_data(saved: Path) -> None:
    page = (saved / "wrong.html").read_text()
    [encoded] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Pillow.open(BytesIO(base64.b64decode(encoded))) as image:
        assert (image.format, image.size) == ("JPEG", (240, 120))
    assert "What &lt;b&gt;is&lt;/b&gt; it?" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "wrong &amp; worse" in page
    assert "right" not in re.findall(r'class="note">([^<]*)', page)[0]


def test_the_gallery_tells_best_from_preferred(saved: Path) -> None:
    rows = re.findall(
        r'<tr(?: class="([^"]*)")?><td class="label">(\d+)</td><td class="label">([^<]*)',
        (saved / "wrong.html").read_text(),
    )
    assert rows == [
        ("best", "1", "+1.000"),
        ("preferred", "2", "+2.000"),
        ("", "3", "+0.000"),
    ]


def test_ranks_from_one_upwards_have_the_first_as_the_best(model: Any, tmp_path: Path) -> None:
    save_report(evaluate(model, [comparison(1, 2, ranks=[1, 2])]), tmp_path)
    styles = re.findall(r'<tr class="([^"]*)">', (tmp_path / "wrong.html").read_text())
    assert styles == ["best", "preferred"]


def test_an_image_that_has_gone_is_named_in_the_gallery(model: Any, tmp_path: Path) -> None:
    Pillow.new("RGB", (8, 8)).save(tmp_path / "gone.png")
    found = evaluate(model, [comparison(0, 1, images=[tmp_path / "gone.png"])])
    (tmp_path / "gone.png").unlink()
    save_report(found, tmp_path / "report")
    assert f"can&#39;t read {tmp_path}/gone.png" in (tmp_path / "report" / "wrong.html").read_text()


def test_an_evaluation_without_a_mistake_has_an_empty_gallery(model: Any, tmp_path: Path) -> None:
    save_report(evaluate(model, [comparison(1, 0)]), tmp_path)
    assert "No pair is ordered wrongly." in (tmp_path / "wrong.html").read_text()
    assert "No pair is ordered wrongly." in (tmp_path / "report.md").read_text()
    assert (tmp_path / "wrong.png").is_file()


def test_progress_goes_to_standard_error(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(model, [comparison(1, 0), comparison(0, 1)], progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "evaluating: 0/2\n"  # no terminal, and done before ten seconds are over
