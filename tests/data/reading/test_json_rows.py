"""A JSON list is read row by row, in flat memory, as the same rows as JSONL."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import DataError
from basereward.data.reading.json_rows import read_list
from basereward.data.reading.rows import read_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=6)


def listed(text: bytes) -> list[Any]:
    return [row for _, row in read_list(io.BytesIO(text))]


@given(ROWS, st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 40))
def test_a_list_gives_its_rows_however_it_is_written_and_cut(
    rows: list[dict[str, Any]], indent: int | None, is_ascii: bool, block: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("basereward.data.reading.json_rows.BLOCK", block)
        assert listed(text) == rows


@given(ROWS, st.data())
def test_a_list_that_is_cut_short_gives_its_first_rows_and_an_error(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    text = json.dumps(rows).encode()
    text = text[: data.draw(st.integers(0, len(text) - 1))]
    rows = []
    with pytest.raises(DataError):
        rows.extend(row for _, row in read_list(io.BytesIO(text)))


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_a_data_error(text: bytes) -> None:
    try:
        num_rows = len(listed(b"[" + text))
    except DataError:
        num_rows = None
    try:
        whole = json.loads((b"[" + text).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        whole = None
    # What is read to its end is JSON to others too, with as many elements; and the other way round.
    assert num_rows == (None if whole is None else len(whole))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1, 2", "is damaged or cut short after row 2: ',' or ']' is missing"),
        (b'[{"a": 1} {"a": 2}]', "is damaged or cut short after row 1: ',' or ']' is missing"),
        (
            b'[{"a": 1}, {"a": tru',
            "row 2 is not JSON or cut short, and nothing after it can be read: Expecting value",
        ),
        (
            b'[{"a": 1}, {"a" 2}]',
            "row 2 is not JSON or cut short, and nothing after it can be read: Expecting ':' delimiter",
        ),
        (
            b'[{"a": 1},]',
            "row 2 is not JSON or cut short, and nothing after it can be read: Expecting value",
        ),
        (b"[] []", "something follows the list, after row 0"),
        (b'[{"a": "\xff"}]', "is not UTF-8: byte 8 is 0xff"),
        (b"[" * 200_000, "row 1 is not JSON that can be read, nor is what follows"),
    ],
)
def test_a_damaged_list_is_an_error_with_the_row(text: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        listed(text)
    assert str(error.value) == message


def test_a_bad_row_of_a_list_is_listed_and_the_next_one_read() -> None:
    rows = listed(b'\xef\xbb\xbf [{"a": 1}, 5, {"a": "\\ud83d"}, {"a": "\\ud83d\\ude00"}, null] \n')
    assert [str(row) if isinstance(row, DataError) else row for row in rows] == [
        {"a": 1},
        "2: a row is a JSON object with the row's fields, not a int",
        "3: holds half of a surrogate pair, such as \\ud83d alone, which is no character",
        {"a": "😀"},
        "5: a row is a JSON object with the row's fields, not a NoneType",
    ]


def test_a_row_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("basereward.data.reading.json_rows.MAX_ROW", 1000)
    monkeypatch.setattr("basereward.data.reading.json_rows.BLOCK", 100)
    assert len(listed(b'[{"a": "' + b"x" * 900 + b'"}]')) == 1
    with pytest.raises(DataError, match="^row 1 has more than the 1,000 characters allowed$"):
        listed(b'[{"a": "' + b"x" * 100_000 + b'"}]')


def test_a_list_of_twenty_megabytes_takes_a_few(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with path.open("w") as file:
        file.write("[" + ",\n".join(json.dumps({"n": n, "text": "x" * 1000}) for n in range(20_000)) + "]")
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 8e6


def test_a_gzipped_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(b'\n [{"a": 1}]'))
    assert list(read_rows(tmp_path / "rows.json.gz")) == [(1, {"a": 1})]
