"""MMPR: the files and image directories that its `meta.json` lists."""

from __future__ import annotations

import json
from pathlib import Path

import hub_datasets
import published
import pytest
from published import opened, write_rows

from basereward import DataError


def test_mmpr_by_a_relative_path_finds_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_datasets.mmpr(tmp_path / "data" / "MMPR-v1.2")
    monkeypatch.chdir(tmp_path)
    for path in ("data/MMPR-v1.2", "data/MMPR-v1.2/meta.json", "./data/../data/MMPR-v1.2"):
        dataset = opened("mmpr", Path(path))
        # A part of one image a row, one of two, and one of none.
        num_images = [len(row.images) for row in dataset]
        assert num_images == [number for number in (1, 2, 0) for _ in range(hub_datasets.NUM_ROWS)]
        assert not dataset.rejected
    monkeypatch.chdir(tmp_path / "data" / "MMPR-v1.2")
    assert len(list(opened("mmpr", Path(".")))) == 3 * hub_datasets.NUM_ROWS


def test_mmpr_reads_the_files_of_its_meta_file(tmp_path: Path) -> None:
    root = tmp_path / "MMPR-v1.2"
    for name in ("annotations", "images/a", "images/b"):
        (root / name).mkdir(parents=True)
    for part, colour in (("a", "red"), ("b", "blue")):
        (root / "images" / part / "1.png").write_bytes(published.image(colour))
    row = {"question": "<image>\n<image>\nWhich?", "chosen": "x", "rejected": "y"}
    write_rows(root / "annotations" / "a.jsonl", [{**row, "image": ["1.png", "1.png"]}], "jsonl")
    write_rows(
        root / "annotations" / "b.jsonl",
        [{**row, "question": "Which?", "image": "1.png"}, {**row, "question": "No image?"}],
        "jsonl",
    )
    meta = {
        part: {
            "root": f"MMPR-v1.2/images/{part}",
            "annotation": f"MMPR-v1.2/annotations/{part}.jsonl",
            "data_augment": False,
            "repeat_time": 1,
            "length": 1,
        }
        for part in ("b", "a")
    }
    (root / "meta.json").write_text(json.dumps(meta))
    for path in (root, root / "meta.json"):
        rows = list(opened("mmpr", path))
        assert [(item.meta["part"], len(item.images)) for item in rows] == [
            ("b", 1),
            ("b", 0),
            ("a", 2),
        ]
        assert rows[0].images[0].open().getpixel((0, 0)) == (0, 0, 255)
        assert rows[2].images[1].open().getpixel((0, 0)) == (255, 0, 0)
    for damaged in (
        "[]",
        "{",
        '{"a": {}}',
        '{"a": 5}',
        '{"a": {"root": "..", "annotation": "a"}}',
        '{"a": {"root": "a", "annotation": "/etc/passwd"}}',
    ):
        (root / "meta.json").write_text(damaged)
        with pytest.raises(DataError) as error:
            opened("mmpr", root)
        assert str(error.value) == (
            f'{root}/meta.json: must be an object of parts, each with "annotation" and "root" '
            "within the directory"
        )
