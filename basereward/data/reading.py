"""Rows of JSONL and Parquet files, each with its number, and with a reason where it can't be read."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Row: TypeAlias = "dict[str, Any]"

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".parquet")
"""What the files of a directory are told by; a single file's format is told by its content."""

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"

BATCH_ROWS = 32
"""Rows of a table in memory at once: each may hold pictures of some megabytes."""


def files_of(path: Path) -> list[Path]:
    """Return the file, or the data files of a directory in the order of their names.

    Raises:
        DataError: When there is none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES) and file.is_file())
        if found:
            return found
        raise DataError(
            f"the directory has no file named {', '.join('*' + suffix for suffix in SUFFIXES)}",
            file=str(path),
        )
    raise DataError("is no regular file" if path.exists() else "no such file", file=str(path))


def read_rows(path: Path) -> Iterator[tuple[int, Row | DataError]]:
    """Yield each row of a file with its number, counted from 1: the line in JSONL, the row in Parquet.

    A row that can't be read comes as the error that says why. Memory stays flat.

    Raises:
        DataError: When the file as a whole can't be read, or not to its end.
        ConfigError: When reading it needs a package that is not installed.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(PARQUET_MAGIC))
            if magic == PARQUET_MAGIC:
                yield from _read_parquet(path)
                return
            file.seek(0)
            if magic.startswith(GZIP_MAGIC):
                with gzip.open(file) as text:
                    yield from read_lines(_to_end(text, path))
            else:
                yield from read_lines(file)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", file=str(path)) from error
    except DataError as error:
        raise error.at(file=str(path)) from error


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Row | DataError]]:
    """Yield the row of each line that is not blank, with the line's number.

    Raises:
        DataError: When the text is one JSON list rather than a row a line.
    """
    is_first = True
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.strip()
        if not line:
            continue
        if is_first and line.startswith(b"["):
            raise DataError("is one JSON list; write one row a line, as by jq -c '.[]' IN.json > OUT.jsonl")
        is_first = False
        try:
            yield number, parsed(line)
        except DataError as error:
            yield number, error.at(line=number)


def parsed(line: bytes) -> Row:
    """Return the JSON object that a line holds.

    Raises:
        DataError: When it holds none, or text that no tokenizer can take.
    """
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: byte {error.start} is 0x{line[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # brackets without end; a number of thousands of digits
        raise DataError(f"is not JSON that can be read: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"a row is a JSON object with the row's fields, not a {type(row).__name__}")
    if b"\\u" in line:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                "holds half of a surrogate pair, such as \\ud83d alone, which is no character"
            ) from error
    return row


def count_rows(path: Path) -> int | None:
    """Return about how many rows a file has, or None where finding out costs as much as reading it."""
    with path.open("rb") as file:
        magic = file.read(len(PARQUET_MAGIC))
        if magic == PARQUET_MAGIC:
            return int(_parquet().ParquetFile(path).metadata.num_rows)
        if magic.startswith(GZIP_MAGIC):
            return None
        file.seek(0)
        num_lines, last = 0, b"\n"
        while block := file.read(1 << 20):
            num_lines += block.count(b"\n")
            last = block[-1:]
        return num_lines + (last != b"\n")


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    pyarrow = _parquet()
    number = 0
    try:
        with pyarrow.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except OSError as error:
        raise DataError(f"the Parquet file is damaged after row {number}: {error}") from error
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise DataError(f"the Parquet file is damaged after row {number}: {error}") from error


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("reading Parquet needs pyarrow; run pip install 'basereward[data]'") from error
    return pyarrow.parquet


def _to_end(text: Iterable[bytes], path: Path) -> Iterator[bytes]:
    number = 0
    try:
        for line in text:
            number += 1
            yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip file is cut short or damaged after line {number}: {error}", file=str(path)
        ) from error
