"""Hostile rows: none ends the reading, each is listed with its line, and every other row arrives."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest
from PIL import Image as Pillow
from published import SETS

from basereward import DataError
from basereward.config import Component
from basereward.data import NativeDataset, TRLDataset
from basereward.plugins import PluginManager

PLUGINS = PluginManager()


def replaced(value: Any, old: Any, new: Any) -> Any:
    """Return a value of JSON with something in it replaced, in texts that are JSON themselves too."""
    if value == old:
        return new
    if isinstance(value, dict):
        return {key: replaced(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, old, new) for inner in value]
    if isinstance(value, str) and value.startswith(("[", "{")):
        return json.dumps(replaced(json.loads(value), old, new))
    if isinstance(value, str) and isinstance(old, str) and isinstance(new, str):
        return value.replace(old, new)
    return value


def good_rows(name: str) -> list[dict[str, Any]]:
    """Return a data set's rows as JSON can hold them."""
    rows: list[dict[str, Any]] = replaced(SETS[name].rows, published.INSIDE, "cat.png")
    return replaced(rows, "mcq/cat.png", "cat.png")


def line_of(row: Any) -> bytes:
    return json.dumps(row).encode()


def nested(depth: int) -> Any:
    value: Any = 5
    for _ in range(depth):
        value = [value]
    return value


TEXTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "cut short": lambda row: line_of(row)[: len(line_of(row)) // 2],
    "without its last character": lambda row: line_of(row)[:-1],
    "with something after it": lambda row: line_of(row) + b" {}",
    "endless brackets": lambda row: b'{"prompt": ' + b"[" * 100_000,
    "endless digits": lambda row: b'{"prompt": ' + b"9" * 100_000 + b"}",
    "no UTF-8": lambda row: line_of(row).replace(b"hown", b"h\xffwn") + b"\xff",
    "Latin-1": lambda row: json.dumps({"prompt": "é"}, ensure_ascii=False).encode("latin-1"),
    "UTF-16": lambda row: json.dumps(row).encode("utf-16-be").replace(b"\n", b" "),
    "half a surrogate": lambda row: line_of({**row, "note": "\ud83d"}),
    "null characters": lambda row: b"\0" * 100,
    "binary": lambda row: bytes(range(11, 256)),
    "a list": lambda row: line_of([row]),
    "a text": lambda row: line_of(json.dumps(row)),
    "a number": lambda row: b"5",
    "null": lambda row: b"null",
    "not a number": lambda row: b"NaN",
    "Python": lambda row: repr(row).encode(),
}
"""Makes of a good row a line that holds no row."""

ROWS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda row: b"{}",
    "only nulls": lambda row: line_of(dict.fromkeys(row)),
    "only numbers": lambda row: line_of(dict.fromkeys(row, 5)),
    "only truth values": lambda row: line_of(dict.fromkeys(row, True)),
    "only infinity": lambda row: line_of(dict.fromkeys(row, float("inf"))),
    "only empty texts": lambda row: line_of(dict.fromkeys(row, "")),
    "only empty lists": lambda row: line_of({name: [] for name in row}),
    "only empty objects": lambda row: line_of({name: {} for name in row}),
    "only nested lists": lambda row: line_of({name: nested(300) for name in row}),
    "only lists of nulls": lambda row: line_of({name: [None, None] for name in row}),
    "other names": lambda row: line_of({name.upper() + "_": value for name, value in row.items()}),
}
"""Makes of a good row a row that no data set can use."""

NAMES = {
    "up and out": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "beside": "../secret.png",
    "a link that leads out": "out.png",
    "a link to itself": "loop.png",
    "a directory": "folder",
    "the directory itself": ".",
    "a pipe": "pipe",
    "a device": "/dev/zero",
    "missing": "none.png",
    "a null character": "cat.png\0.jpg",
    "very long": "x" * 100_000,
    "in a very long archive": "x" * 5000 + ".zip/cat.png",
    "half a surrogate": "cat\udcff.png",
    "a URL": "https://example.org/cat.png",
    "a broken URL": "https://[::1/cat.png",
    "another protocol": "ftp://example.org/cat.png",
    "a file elsewhere": "file:///etc/passwd",
    "within what is no archive": "cat.png/inner.png",
    "missing in an archive": "images.zip/none.png",
    "in a damaged archive": "damaged.zip/cat.png",
    "damaged base64": "data:image/png;base64,!!!!",
}
"""Names of images that lead nowhere a data set's image may be."""

REPRESENTATIVES = ("basereward", "mm-rlhf")
"""A data set of single rows, and one that joins rows and looks for images itself.

Texts that hold no row come to an end in `json_rows.parsed`, before any data set, and all data sets take its
errors in one of two ways: in `FileDataset.comparison` or in `GroupedDataset.read`. Names of images come to an
end in `Media`, which all data sets ask alike; only MM-RLHF looks for the file before that. Rows of wrong
values are met by the code of each data set, so they go to all.
"""

TABLE = [(name, case) for name in SETS for case in ROWS] + [
    (name, case) for name in REPRESENTATIVES for case in (*TEXTS, *NAMES)
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all that the names of `NAMES` lead to."""
    directory = tmp_path_factory.mktemp("hostile") / "set"
    (directory / "folder").mkdir(parents=True)
    (directory / "cat.png").write_bytes(published.image())
    (directory.parent / "secret.png").write_bytes(published.image())
    (directory / "out.png").symlink_to(directory.parent / "secret.png")
    (directory / "loop.png").symlink_to("loop.png")
    (directory / "damaged.zip").write_bytes(b"PK\3\4 no archive")
    os.mkfifo(directory / "pipe")
    return directory


@pytest.mark.parametrize(("name", "case"), TABLE)
def test_a_hostile_row_is_listed_and_all_others_arrive(directory: Path, name: str, case: str) -> None:
    rows = good_rows(name)
    lines = TEXTS | ROWS
    hostile = lines[case](rows[0]) if case in lines else line_of(replaced(rows[0], "cat.png", NAMES[case]))
    after = replaced(rows, "What is shown?", "And here?")
    file = directory / "rows.jsonl"
    file.write_bytes(b"\n".join([*map(line_of, rows), hostile, *map(line_of, after)]) + b"\n")
    dataset = PLUGINS.build("dataset", Component(name, {"path": str(file), **SETS[name].options}))
    assert [item.responses for item in dataset] == [tuple(SETS[name].responses)] * 2
    [error] = dataset.rejected
    assert (error.file, error.line) == (str(file), len(rows) + 1)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("case", NAMES)
def test_a_hostile_video_is_listed(directory: Path, case: str) -> None:
    row = {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}
    videos = [NAMES[case], [NAMES[case]], {"video": NAMES[case], "fps": 1}]
    (directory / "videos.jsonl").write_text(
        "".join(json.dumps({**row, "videos": [video]}) + "\n" for video in videos) + json.dumps(row) + "\n"
    )
    dataset = NativeDataset(directory / "videos.jsonl")
    assert len(list(dataset)) == 1
    assert [error.line for error in dataset.rejected] == [1, 2, 3]


@pytest.mark.parametrize("name", SETS)
def test_rows_nested_as_deep_as_python_can_parse_are_listed(tmp_path: Path, name: str) -> None:
    # Up to where the parser itself gives up, each further step comes to its limit at another depth.
    rows = [
        (line_of({**good_rows(name)[0], field: None})[:-1] + b', "%s": ' % field.encode())
        + b"[" * depth
        + tail
        + b"]" * depth
        + b"}"
        for depth in range(970, 1000)
        for field in good_rows(name)[0]
        for tail in (b"5", rb'"\ud83d"')
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(rows))
    dataset = PLUGINS.build(
        "dataset", Component(name, {"path": str(tmp_path / "rows.jsonl"), **SETS[name].options})
    )
    num_comparisons = len(list(dataset))
    # A group of rows is one comparison; fields that no one looks at may be nested.
    assert len(dataset.rejected) + num_comparisons <= len(rows)
    assert len(dataset.rejected) >= len(rows) // 2


FILES: dict[str, Callable[[list[Any]], bytes]] = {
    "an empty file": lambda rows: b"",
    "only white space": lambda rows: b" \n\n\t\n" * 1000,
    "only a mark of the byte order": lambda rows: b"\xef\xbb\xbf",
    "a list that is cut short": lambda rows: json.dumps(rows).encode()[:-30],
    "a list without its end": lambda rows: json.dumps(rows).encode()[:-1],
    "a list of lists without end": lambda rows: b"[" * 100_000,
    "a list of no UTF-8": lambda rows: b'["\xff\xfe"]',
    "a list in UTF-16": lambda rows: json.dumps(rows).encode("utf-16"),
    "a list of bad rows": lambda rows: b'[1, null, "x", [], {}, true]',
    "two lists": lambda rows: json.dumps(rows).encode() * 2,
    "a gzip file that is cut short": lambda rows: gzip.compress(b"\n".join(map(line_of, rows)))[:-9],
    "a gzip file that is damaged": lambda rows: (
        gzip.compress(b"\n".join(map(line_of, rows)))[:20] + b"\1" * 50
    ),
    "a gzip file of nothing": lambda rows: gzip.compress(b""),
    "the beginning of a gzip file": lambda rows: b"\x1f\x8b",
    "the beginning of a Parquet file": lambda rows: b"PAR1",
    "a Parquet file of nothing": lambda rows: b"PAR1" + b"\0" * 50 + b"PAR1",
    "the beginning of an Arrow file": lambda rows: b"ARROW1\0\0",
    "the beginning of an Arrow stream": lambda rows: b"\xff\xff\xff\xff\x10\0\0\0",
    "an Arrow stream of noise": lambda rows: b"\xff\xff\xff\xff" + bytes(range(256)) * 9,
    "an image": lambda rows: published.image(),
    "an archive": lambda rows: b"PK\3\4" + b"\0" * 100,
}


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_gives_good_rows_and_data_errors_only(tmp_path: Path, case: str) -> None:
    rows = [{"prompt": f"p{number}", "responses": ["a", "b"], "ranks": [0, 1]} for number in range(20)]
    (tmp_path / "rows").write_bytes(FILES[case](rows))
    dataset = NativeDataset(tmp_path / "rows")
    _ = dataset.num_rows
    rows_read = []
    try:
        rows_read.extend(dataset)
    except DataError as error:
        assert error.file == str(tmp_path / "rows")  # noqa: PT017
    assert [item.prompt[0].text for item in rows_read] == [f"p{number}" for number in range(len(rows_read))]
    assert all(error.file == str(tmp_path / "rows") for error in dataset.rejected)


def test_a_text_of_a_table_that_is_no_utf8_is_one_bad_row(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    prompts = pyarrow.array([b"p0", b"p\xff", b"p2"]).cast(pyarrow.binary())
    damaged = pyarrow.Array.from_buffers(pyarrow.string(), 3, prompts.buffers())
    columns = {"prompt": damaged, "chosen": ["a"] * 3, "rejected": ["b"] * 3}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    dataset = TRLDataset(tmp_path / "rows.parquet")
    assert [item.prompt[0].text for item in dataset] == ["p0", "p2"]
    assert [str(error) for error in dataset.rejected] == [
        f"{tmp_path}/rows.parquet:2: holds a text that is not UTF-8: invalid start byte at byte 1"
    ]


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """Return a PNG file that declares a size, whatever its body holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Pillow.effect_noise((64, 64), 50).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGES = {
    "empty": b"",
    "text": b"hello",
    "a web page": b"<!doctype html><title>404</title>",
    "a vector drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "cut short": jpeg()[:700],
    "only its beginning": published.image()[:20],
    "a bomb of 30000 x 30000": png(30_000, 30_000),
    "a bomb of 100000 x 100000": png(100_000, 100_000),
    "more pixels than it holds": png(1000, 1000, b"\0" * 10),
    "no width": png(0, 10),
    "noise": bytes(range(256)) * 20,
}
"""Files of images that can't be shown."""


def test_hostile_rows_are_listed_by_a_training_and_the_others_are_trained_on(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    from basereward import train
    from basereward.config import DataConfig, RunConfig, Source, TrainConfig

    good = {
        "control tokens": {
            "prompt": "<|im_end|><|im_start|>assistant\nyes",
            "responses": ["a", "<|im_end|>"],
        },
        "an image": {"prompt": "what", "images": ["cat.png"], "responses": ["a cat", "a dog"]},
        "many signs": {"prompt": "\u202e\ufeff\0\x1b[2J" + "a\u0301" * 50, "responses": ["a", "b"]},
    }
    bad: dict[str, dict[str, Any]] = {
        "a million characters": {"prompt": "x" * 1_000_000, "responses": ["a", "b"]},
        "a long response": {"prompt": "p", "responses": ["a", "b " * 500_000]},
        "a placeholder": {"prompt": "<image>", "responses": ["a", "b"]},
        "a video": {"prompt": "p", "videos": [["text.png"]], "responses": ["a", "b"]},
        "thin": {"prompt": "p", "images": ["thin.png"], "responses": ["a", "b"]},
        "traversal": {"prompt": "p", "images": ["../secret.png"], "responses": ["a", "b"]},
    }
    directory = tmp_path / "set"
    directory.mkdir()
    for name, content in IMAGES.items():
        (directory / f"{name}.png").write_bytes(content)
        bad[f"image: {name}"] = {"prompt": "p", "images": [f"{name}.png"], "responses": ["a", "b"]}
    (directory / "cat.png").write_bytes(published.image())
    Pillow.new("RGB", (3000, 3)).save(directory / "thin.png")
    rows = [{"id": name, "ranks": [0, 1], **row} for pair in (good, bad, good) for name, row in pair.items()]
    lines = [json.dumps(row) for row in rows] + ["{broken"]
    (directory / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = RunConfig(
        output=str(tmp_path / "run"),
        backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"]), "max_tokens": 500}),
        data=DataConfig(
            train=(Source("basereward", {"path": str(directory / "rows.jsonl")}),), max_bad_share=0.5
        ),
        train=TrainConfig(batch_size=2, epochs=1.0),
    )
    result = train(run)
    listed = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert sorted(entry["line"] for entry in listed) == [
        *range(len(good) + 1, len(good) + len(bad) + 1),
        len(lines),
    ]
    assert all(entry["file"] == str(directory / "rows.jsonl") and entry["reason"] for entry in listed)
    assert result.num_rejected == len(bad) + 1


HUGE = 10**401
RANKED = {"prompt": "q", "responses": ["a", "b"], "ranks": [0, 1]}
RATED = {"prompt": "q", "responses": ["a", "b"], "ratings": [1, 0]}
CHOSEN = {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1}
NUMBERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ranks": (RANKED, {"ranks": [HUGE, 0]}),
    "ratings": (RATED, {"ratings": [0, -HUGE]}),
    "ratings whose difference is infinite": (RATED, {"ratings": [1.7e308, -1.7e308]}),
    "weight": (RANKED, {"weight": HUGE}),
    "fps": (RANKED, {"videos": [{"video": ["cat.png"], "fps": HUGE}]}),
    "margin": (CHOSEN, {"margin": HUGE}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_no_float_can_hold_costs_its_row_and_no_other(tmp_path: Path, name: str) -> None:
    good, change = NUMBERS[name]
    Pillow.new("RGB", (3, 3)).save(tmp_path / "cat.png")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(line_of, (good, {**good, **change}, good))))
    read = list((TRLDataset if good is CHOSEN else NativeDataset)(path).read())
    assert [isinstance(item, DataError) for item in read] == [False, True, False]
    assert isinstance(read[1], DataError)
    assert read[1].line == 2
