"""Files that are whole, cut short, of the wrong kind, or hold single bad rows."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.data.reading.json_rows import MAX_ROW, parsed
from basereward.data.reading.paths import files_of
from basereward.data.reading.rows import count_rows, read_lines, read_rows
from basereward.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"prompt": "p", "responses": ["a", "b"], "n": number} for number in range(5)]


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def test_the_content_and_not_the_name_tells_the_kind_of_a_file(file: Path) -> None:
    file.write_bytes(jsonl(ROWS))
    as_text = list(read_rows(file))
    file.write_bytes(gzip.compress(jsonl(ROWS)))
    as_gzip = list(read_rows(file))
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    as_table = list(read_rows(file))
    assert as_text == as_gzip == as_table == list(enumerate(ROWS, start=1))


def test_lines_are_numbered_as_an_editor_numbers_them(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_rows(file)) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "is not JSON: Expecting ',' delimiter at column 8"),
        (b"nonsense", "is not JSON: Expecting value at column 1"),
        (b'"text"', "a row is a JSON object with the row's fields, not a str"),
        (b"5", "a row is a JSON object with the row's fields, not a int"),
        (b'{"a": "\xff"}', "is not UTF-8: byte 7 is 0xff"),
        (
            rb'{"a": "\ud83d"}',
            "holds half of a surrogate pair, such as \\ud83d alone, which is no character",
        ),
    ],
)
def test_a_bad_line_comes_as_an_error_with_its_number_and_the_next_line_is_read(
    file: Path, line: bytes, reason: str
) -> None:
    file.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    first, bad, last = read_rows(file)
    assert (first, last) == ((1, {"a": 1}), (3, {"a": 2}))
    assert bad[0] == 2
    assert str(bad[1]) == f"2: {reason}"


def test_a_line_of_endless_brackets_or_digits_is_a_bad_line() -> None:
    for line in (b'{"a": ' + b"[" * 200_000, b'{"a": ' + b"9" * 5000 + b"}"):
        with pytest.raises(DataError, match=r"^is not JSON that can be read: "):
            parsed(line)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parsed(rb'{"a": "\ud83d\ude00"}') == {"a": "😀"}


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_raise_anything_but_the_error_of_a_json_list(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"") + b"\n" for line in lines]
    stripped = [line.removeprefix(b"\xef\xbb\xbf") if not at else line for at, line in enumerate(lines)]
    filled = [line for line in stripped if line.strip()]
    if filled and filled[0].strip().startswith(b"["):
        with pytest.raises(DataError, match="is one JSON list"):
            list(read_lines(lines))
    else:
        assert len(list(read_lines(lines))) == len(filled)


def test_a_json_list_on_a_pipe_is_refused_with_the_way_to_convert_it() -> None:
    with pytest.raises(DataError) as error:
        list(read_lines([b"[\n", b"{}\n", b"]\n"]))
    assert str(error.value) == (
        "is one JSON list; write one row a line, as by jq -c '.[]' IN.json > OUT.jsonl"
    )


def test_a_gzip_file_that_is_cut_short_is_an_error_after_the_rows_that_could_be_read(file: Path) -> None:
    rows = [{"n": number, "noise": os.urandom(50).hex()} for number in range(2000)]
    file.write_bytes(gzip.compress(jsonl(rows))[:-20_000])
    rows_read = []
    with pytest.raises(DataError, match=rf"^{file}: the gzip file is cut short or damaged after row \d+$"):
        rows_read.extend(read_rows(file))


def test_a_damaged_parquet_file_is_an_error_that_names_it(file: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"^{file}: the Parquet file is damaged after row 0$"):
        list(read_rows(file))


def test_parquet_rows_go_on_counting_over_row_groups(file: Path) -> None:
    rows = [{"n": number} for number in range(100)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=7)
    assert list(read_rows(file)) == list(enumerate(rows, start=1))


def test_rows_are_counted_without_being_parsed(file: Path) -> None:
    file.write_bytes(jsonl(ROWS))
    assert count_rows(file) == 5
    file.write_bytes(jsonl(ROWS).removesuffix(b"\n"))
    assert count_rows(file) == 5
    file.write_bytes(b"")
    assert count_rows(file) == 0
    file.write_bytes(gzip.compress(jsonl(ROWS)))
    assert count_rows(file) is None
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    assert count_rows(file) == 5


def test_a_directory_is_its_data_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "c.jsonl.gz", "README.md", "cat.png"):
        (tmp_path / name).touch()
    assert [file.name for file in files_of(tmp_path)] == ["a.parquet", "b.jsonl", "c.jsonl.gz"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        files_of(tmp_path / "none.jsonl")
    assert str(error.value) == f"{tmp_path}/none.jsonl: no such file"
    with pytest.raises(DataError) as error:
        files_of(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: the directory has no file named *.jsonl, *.jsonl.gz, *.ndjson, *.parquet, *.arrow, "
        "*.json, *.json.gz"
    )
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError) as error:
        files_of(tmp_path / "pipe")
    assert str(error.value) == f"{tmp_path}/pipe: is no regular file"


def rows_of(path: Path, content: bytes) -> list[str]:
    """Return the rows of a file of this content, those that can't be read by their errors' text."""
    path.write_bytes(content)
    return [str(row) if isinstance(row, DataError) else "good" for _, row in read_rows(path)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_without_end_is_one_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr("basereward.data.reading.rows.MAX_ROW", 1000)
    monkeypatch.setattr("basereward.data.reading.rows.BLOCK", 100)
    bad = "2: has more than the 1,000 bytes allowed"
    for length in (1001, 1100, 5000):
        content = b'{"a": 1}\n' + b"x" * length + b'\n{"a": 2}\n'
        assert rows_of(tmp_path / "rows", pack(content)) == ["good", bad, "good"]
        assert rows_of(tmp_path / "rows", pack(content[: 9 + length])) == ["good", bad]
    whole = b'{"a": "' + b"x" * 991 + b'"}\n'
    assert len(whole) == 1001
    assert rows_of(tmp_path / "rows", pack(whole[:-1])) == ["good"]


def test_memory_does_not_grow_with_a_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(256):
            file.write(b" " * (1 << 20))
    tracemalloc.start()
    try:
        [(number, row)] = read_rows(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (number, isinstance(row, DataError)) == (1, True)
    assert peak < 3 * MAX_ROW  # of 256 MiB; a line of 64 MiB is joined of its parts


@pytest.mark.parametrize("form", ["lines", "list"])
@pytest.mark.parametrize(
    "bad",
    [
        b'{"ranks": [0, 1], "ranks": [1, 0]}',
        b'{"a": [{"b": 1, "b": 1}]}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_row_that_says_two_things_is_refused_and_no_other(tmp_path: Path, form: str, bad: bytes) -> None:
    good = b'{"ranks": [0, 1]}'
    content = b"\n".join([good, bad, good]) if form == "lines" else b"[" + b",".join([good, bad, good]) + b"]"
    first, second, third = rows_of(tmp_path / "rows", content)
    assert (first, third) == ("good", "good")
    assert second.startswith("2: is not JSON that can be read: ")


def test_a_list_whose_bad_row_is_longer_than_a_block_goes_on(tmp_path: Path) -> None:
    bad = b'{"a": 1, "a": 1, "b": "' + b"x" * (3 << 20) + b'"}'
    content = b"[" + b",".join([b"{}", bad, b"{}"]) + b"]"
    assert len(rows_of(tmp_path / "rows", content)) == 3


@pytest.mark.parametrize("is_within", [False, True])
def test_columns_of_one_name_are_refused(tmp_path: Path, is_within: bool) -> None:
    column = pyarrow.array([[0, 1]])
    table = pyarrow.Table.from_arrays([column, column], names=["ranks", "ranks"])
    if is_within:
        struct = pyarrow.StructArray.from_arrays([column, column], names=["ranks", "ranks"])
        table = pyarrow.Table.from_arrays([struct], names=["row"])
    path = tmp_path / "rows.parquet"
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="has the column 'ranks' twice"):
        list(read_rows(path))
    if not is_within:
        parquet.write_table(table, path)
        with pytest.raises(DataError, match="has the column 'ranks' twice"):
            list(read_rows(path))


def test_parquet_whose_rows_are_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": ["x" * 10_000] * 3}), path, use_dictionary=False)
    assert len(list(read_rows(path))) == 3
    monkeypatch.setattr("basereward.data.reading.arrow_rows.MAX_ROW", 5000)
    with pytest.raises(DataError, match="row group 0 has more than the 5,000 bytes a row allowed"):
        list(read_rows(path))
