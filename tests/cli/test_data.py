"""`basereward data`: every command on small files, as a user calls it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from images import drawing

from basereward.data import read_comparisons


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write rows in the current directory: one with an image, a near copy, a bad one, three responses."""
    drawing(1).save(tmp_path / "one.png")
    long = "the quick brown fox jumps over the lazy dog while nine cats look on from the wall and purr"
    content = [
        {
            "id": "1",
            "prompt": "What is it?",
            "images": ["one.png"],
            "responses": ["a dog", "a"],
            "ranks": [0, 1],
        },
        {"id": "2", "prompt": "Tell me more", "responses": [long, "no"], "ranks": [0, 1]},
        {"id": "3", "prompt": "Tell me more!", "responses": [long + " loudly", "no"], "ranks": [0, 1]},
        {"id": "4", "prompt": "bad", "responses": []},
        {"id": "5", "prompt": "three", "responses": ["a", "b", "c"], "ratings": [1, 2, 2]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def ids(path: Path) -> list[str]:
    return [comparison.id for comparison in read_comparisons(path)]


BAD = (
    "1 row can't be used, the first: rows.jsonl:4: responses: the list is empty; at least one response is "
    "needed"
)


def without_progress(text: str) -> str:
    """Return what a command said beside the lines of its progress."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("reading: "))


def test_inspect_prints_a_table_and_writes_a_page_that_needs_no_other_file(run_cli: Any, rows: Path) -> None:
    done = run_cli("data", "inspect", "rows.jsonl", "--output", "page.html")
    assert (done.returncode, without_progress(done.stderr)) == (0, f"{BAD}\npage: page.html\n")
    assert done.stderr.startswith("reading: 0")
    title, line = done.stdout.splitlines()
    assert title.split()[:6] == ["source", "rows", "images", "N", "pairs", "ties"]
    # Pairs 1 + 1 + 1 and 2 of the three responses' 3, one of which is a tie.
    assert line.split()[:8] == ["rows", "4", "1", "2", "to", "3", "5", "1"]
    page = (rows.parent / "page.html").read_text()
    assert len(re.findall("<article", page)) == 4
    assert page.count("data:image/jpeg;base64,") == 1
    assert "http" not in page
    assert "the list is empty; at least one response is needed" in page


def test_stats_are_json(run_cli: Any, rows: Path) -> None:
    done = run_cli("data", "stats", "rows.jsonl", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["total"]["num_rows"] == found["sources"]["rows"]["num_rows"] == 4
    assert found["rejected"] == {"num_rows": 1, "by_field": {"responses": 1}}


def test_images_are_kept_under_the_options_older_name_too(run_cli: Any, rows: Path) -> None:
    for option in ("--images", "--pictures"):
        done = run_cli("data", "convert", "rows.jsonl", "--output", f"{option[2:]}.jsonl", option, "keep")
        assert without_progress(done.stderr).startswith(BAD)
    images, pictures = (rows.with_name(f"{name}.jsonl").read_bytes() for name in ("images", "pictures"))
    assert images == pictures
    assert not list(rows.with_name("images.jsonl-files").rglob("*.png"))


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_convert_writes_our_own_format_and_lists_the_rest(run_cli: Any, rows: Path, name: str) -> None:
    done = run_cli("data", "convert", "rows.jsonl", "--output", name)
    assert done.returncode == 0
    assert without_progress(done.stderr) == f"{BAD}\n4 rows: {name}; what was left out: {name}-files\n"
    assert ids(rows.parent / name) == ["1", "2", "3", "5"]
    listed = (rows.parent / f"{name}-files" / "rejected.jsonl").read_text()
    assert json.loads(listed)["line"] == 4
    again = run_cli("data", "convert", "rows.jsonl", "--output", name)
    assert (again.returncode, again.stderr) == (
        2,
        f"basereward: error: {name} exists; name another file, or replace it with --overwrite\n",
    )


def test_dedup_leaves_out_near_copies_and_says_of_what(run_cli: Any, rows: Path) -> None:
    done = run_cli("data", "dedup", "rows.jsonl", "--output", "unique.jsonl", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["num_in"], report["num_rejected"], report["num_dropped"], report["num_out"]) == (
        5,
        1,
        1,
        3,
    )
    assert report["steps"][0]["examples"][0]["dropped"] == "nearly the same row: as rows.jsonl:2"
    assert ids(rows.parent / "unique.jsonl") == ["1", "2", "5"]


def test_curate_takes_steps_in_order_or_from_the_run_file(run_cli: Any, rows: Path) -> None:
    (rows.parent / "run.toml").write_text(
        "output = 'o'\nbackbone = 'b'\n[[data.train]]\nname = 'basereward'\npath = 'rows.jsonl'\n"
        "[[data.curation]]\nname = 'hardest-pair'\n[[data.curation]]\nname = 'length-bias'\n"
        "min_characters = 10\n"
    )
    steps = ["--step", "hardest-pair", "--step", "length-bias min_characters=10"]
    done = run_cli("data", "curate", "rows.jsonl", *steps, "--json")
    from_file = run_cli("data", "curate", "--run", "run.toml", "--json")
    assert (done.returncode, from_file.returncode, from_file.stdout) == (0, 0, done.stdout)
    numbers = [
        (step["step"], step["num_in"], step["num_changed"], step["num_out"])
        for step in json.loads(done.stdout)["steps"]
    ]
    assert numbers == [("hardest-pair", 4, 1, 4), ("length-bias", 4, 0, 2)]
    table = run_cli("data", "curate", "rows.jsonl", *steps, "--report", "report")
    assert table.returncode == 0
    lines = [line.split() for line in table.stdout.splitlines()[:4]]
    assert lines[0] == ["step", "in", "changed", "dropped", "out", "why"]
    assert lines[3][:5] == ["length-bias", "4", "0", "2", "2"]
    assert len((rows.parent / "report" / "rejected.jsonl").read_text().splitlines()) == 3


def test_contamination_names_the_rows_and_can_remove_them(run_cli: Any, rows: Path) -> None:
    drawing(1).save(rows.parent / "copy.jpg", quality=60)
    row = {
        "id": "b",
        "prompt": "Which animal?",
        "images": ["copy.jpg"],
        "responses": ["a", "b"],
        "ranks": [0, 1],
    }
    (rows.parent / "bench.jsonl").write_text(json.dumps(row))
    done = run_cli(
        "data", "contamination", "rows.jsonl", "--against", "bench.jsonl", "--output", "clean.jsonl"
    )
    assert done.returncode == 0
    assert "similar image 1" in done.stdout
    assert ids(rows.parent / "clean.jsonl") == ["2", "3", "5"]
    exact = run_cli(
        "data", "contamination", "rows.jsonl", "--against", "bench.jsonl", "--max-distance", "none", "--json"
    )
    assert json.loads(exact.stdout)["num_dropped"] == 0


MISTAKES = {
    "inspect": "give a path, or --dataset NAME for a dataset that needs none",
    "inspect rows.jsonl --option a=1": (
        "dataset 'basereward' has no option 'a'; options: source, split, config, media_dir, media_roots, "
        "media_hosts, ignored_columns"
    ),
    "inspect rows.jsonl --run run.toml": "--run names the data itself; leave out PATH, --dataset "
    "and --option",
    "curate rows.jsonl": "give --step NAME, or --run with a file that has [[data.curation]]",
    "curate rows.jsonl --step min-gap": "curation step 'min-gap' needs option 'min_gap'; options: min_gap",
    "contamination rows.jsonl": "give --benchmark NAME=PATH, or --against PATH for rows of your own",
    "dedup rows.jsonl --report r --output o.jsonl": "--report goes without --output, which leaves the "
    "reports in NAME-files",
    "stats no.jsonl": "no.jsonl: no such file",
    "stats rows.jsonl --on-bad-row fail": "rows.jsonl:4: responses: the list is empty; at least "
    "one response is needed",
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.items())
def test_a_wrong_command_says_what_to_write(run_cli: Any, rows: Path, arguments: str, message: str) -> None:
    done = run_cli("data", *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert without_progress(done.stderr) == f"basereward: error: {message}\n"


def test_without_a_command_the_help_is_shown(run_cli: Any) -> None:
    done = run_cli("data")
    assert done.returncode == 2
    assert "contamination" in done.stderr


def test_weights_are_written_into_the_rows(run_cli: Any, rows: Path) -> None:
    done = run_cli(
        "data", "weights", "longest", "rows.jsonl", "--output", "weighted.jsonl", "--json", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    # The longer response is the better one in rows 1 to 3. Of row 5 "a" is rated below "b" and "c", all alike
    # long: two pairs of no margin. So 4 of 5 pairs count as right.
    assert (report["num_pairs"], report["proxy_accuracy"], report["num_rejected"]) == (5, 4 / 5, 1)
    weights = {row.id: row.weight for row in read_comparisons(rows.parent / "weighted.jsonl")}
    assert sum(weights.values()) == pytest.approx(4)
    assert weights["2"] <= weights["1"] < weights["5"]
    assert weights["1"] < 1
    kept = json.loads((rows.parent / "weighted.jsonl-files" / "report.json").read_text())
    assert kept == report
