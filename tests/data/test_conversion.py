"""Conversion: what is written is read back the same, and what is not written is listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from images import drawing, encoded

from basereward import Comparison, ConfigError
from basereward.config import Component
from basereward.data import read_comparisons
from basereward.data.conversion import convert
from basereward.data.curation import Curation
from basereward.data.writing import open_writer
from basereward.errors import DataError
from basereward.media import Image
from basereward.plugins import PluginManager

IMAGE = encoded(drawing(1))


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Comparison]:
    """Return rows with images as bytes, as a file and in memory, turns, ranks, ratings and meta."""
    path = tmp_path / "in" / "image.jpg"
    path.parent.mkdir()
    path.write_bytes(encoded(drawing(2), "JPEG"))
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one <image> two <image>"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "and?"},
    ]
    return [
        Comparison(turns, ["a", "b", "ü"], images=[IMAGE, path], ratings=[1, 3, 3], id="1", source="s"),
        Comparison("memory", ["a", "b"], images=[drawing(3)], ranks=[1, 0], weight=0.5, meta={"k": [1, "x"]}),
        Comparison("again", ["a"], images=[IMAGE], id="3"),
        Comparison("text", ["a", "b"], id="4"),
    ]


def facts(comparison: Comparison) -> tuple[object, ...]:
    # Images by what they show: one in memory has no file to be equal to.
    shown = [
        [part.open().tobytes() if isinstance(part, Image) else part for part in message.content]
        for message in comparison.prompt
    ]
    meta = {key: value for key, value in comparison.meta.items() if not key.startswith("_")}
    return (shown, comparison.responses, comparison.ranks, comparison.ratings, comparison.weight, meta)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_written_is_read_back_the_same(
    tmp_path: Path, comparisons: list[Comparison], name: str
) -> None:
    with open_writer(tmp_path / name) as writer:
        for comparison in comparisons:
            writer.write(comparison)
    rows_read = list(read_comparisons(tmp_path / name))
    assert list(map(facts, rows_read)) == list(map(facts, comparisons))
    assert [row.id for row in rows_read] == ["1", f"{name}:2", "3", "4"]
    if name == "out.jsonl":
        # Three different images, one of them twice, each with the suffix of its format.
        suffixes = sorted(path.suffix for path in (tmp_path / "out.jsonl-files" / "images").iterdir())
        assert suffixes == [".jpg", ".png", ".png"]
    # Written again, it is the same file: images keep their names.
    with open_writer(tmp_path / f"again-{name}") as writer:
        for comparison in rows_read:
            writer.write(comparison)
    again = list(read_comparisons(tmp_path / f"again-{name}"))
    assert [[image.digest for image in row.images] for row in again] == [
        [image.digest for image in row.images] for row in rows_read
    ]


def test_images_may_be_kept_where_they_are(tmp_path: Path, comparisons: list[Comparison]) -> None:
    with open_writer(tmp_path / "out.jsonl", images="keep") as writer:
        writer.write(comparisons[0])
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["images"][1] == "in/image.jpg"
    assert row["images"][0].startswith("out.jsonl-files/images/")
    with pytest.raises(ConfigError) as caught:
        open_writer(tmp_path / "out.parquet", images="keep")
    assert str(caught.value) == ("images stand inside a Parquet file and can't be kept apart; write .jsonl")


def test_a_file_is_replaced_only_if_asked_and_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first, second = Comparison("1", ["a"], images=[IMAGE]), Comparison("2", ["a"], images=[IMAGE])
    with open_writer(path) as writer:
        writer.write(first)
    with pytest.raises(ConfigError) as caught:
        open_writer(path)
    assert str(caught.value) == f"{path} exists; name another file, or replace it with --overwrite"

    class Stop(Exception):
        pass

    before = sorted(tmp_path.rglob("*"))

    def stop() -> None:
        with open_writer(path, overwrite=True) as writer:
            writer.write(second)
            raise Stop

    with pytest.raises(Stop):
        stop()
    assert sorted(tmp_path.rglob("*")) == before
    # A file may be read while it is replaced, its images too.
    with open_writer(path, overwrite=True) as writer:
        for comparison in read_comparisons(path):
            writer.write(comparison)
    assert [row.images[0].digest for row in read_comparisons(path)] == [Image(IMAGE).digest]


def test_a_name_must_say_the_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_writer(tmp_path / "out.csv")
    assert str(caught.value) == f"{tmp_path / 'out.csv'}: the name must end in .jsonl or .parquet"


def test_every_row_is_written_or_listed_with_its_reason(tmp_path: Path) -> None:
    rows = [
        {"id": "good", "prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]},
        {"id": "bad", "prompt": "p", "responses": []},
        {"id": "same", "prompt": "p", "responses": ["a", "A"], "ranks": [0, 0]},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gone = Comparison("p", ["a"], images=[tmp_path / "gone.png"], id="gone")
    curation = Curation.of([Component("drop-identical")], PluginManager())
    seen: list[Comparison | DataError] = []
    with open_writer(tmp_path / "out.jsonl") as writer:
        outcome = convert([*read_comparisons(source).read(), gone], curation, writer, each=seen.append)
    assert outcome.to_dict() == {"num_in": 4, "num_out": 1, "num_rejected": 2, "num_dropped": 1}
    assert len(seen) == 4
    files = tmp_path / "out.jsonl-files"
    listed = [json.loads(line) for line in (files / "rejected.jsonl").read_text().splitlines()]
    assert listed[1] == {
        "id": "same",
        "file": str(source),
        "line": 3,
        "field": "responses",
        "reason": "dropped by drop-identical: all responses identical",
    }
    assert [row["id"] for row in listed] == ["", "same", "gone"]
    assert [row.id for row in read_comparisons(tmp_path / "out.jsonl")] == ["good"]
    report = json.loads((files / "report.json").read_text())
    assert (report["num_in"], report["steps"][0]["num_out"]) == (4, 2)
