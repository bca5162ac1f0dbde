"""Read the rows of files of any kind, each with its number, or with the reason why it can't be read."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from basereward.data.reading.arrow_rows import count_table, is_table, read_table
from basereward.data.reading.json_rows import BLOCK, MAX_ROW, parsed, read_list
from basereward.data.reading.paths import STANDARD_INPUT
from basereward.data.reading.row import Row
from basereward.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
START = 1 << 10
"""Bytes from which the kind of a file is recognized."""


def read_rows(path: Path) -> Iterator[tuple[int, Row | DataError]]:
    """Yield each row of a file with its number, counted from 1: the line in JSONL, the row in all else.

    Whether it is JSONL, a JSON list, either of them gzipped, Parquet or Arrow follows from its content, not
    its name. A row that can't be read comes as the error that says why. Memory stays flat.

    Raises:
        DataError: When the file as a whole can't be read, or not to its end.
        ConfigError: When reading it needs a package that is not installed.
    """
    number = 0
    try:
        if path == STANDARD_INPUT:
            yield from read_lines(bounded_lines(sys.stdin.buffer))
            return
        with path.open("rb") as file:
            start = file.read(START)
            file.seek(0)
            if is_table(start):
                yield from read_table(path, start)
            elif start.startswith(GZIP_MAGIC):
                with gzip.open(file) as text:
                    for number, row in read_text(text, text.read(START)):
                        yield number, row
            else:
                yield from read_text(file, start)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip file is cut short or damaged after row {number}", file=str(path)
        ) from error
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", file=str(path)) from error
    except DataError as error:
        raise error.at(file="standard input" if path == STANDARD_INPUT else str(path)) from error


def read_text(file: BinaryIO | gzip.GzipFile, start: bytes) -> Iterator[tuple[int, Row | DataError]]:
    """Yield each row of JSONL or of a JSON list, which begins with the bytes `start`.

    Raises:
        DataError: When a list is cut short or damaged.
    """
    file.seek(0)
    return read_list(file) if is_list(start) else read_lines(bounded_lines(file))


def is_list(start: bytes) -> bool:
    """Tell by its first bytes whether a text is a JSON list."""
    return start.removeprefix(BOM).lstrip().startswith(b"[")


def bounded_lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for one that is longer than a row may be, which is skipped."""
    while line := file.readline(MAX_ROW + 1):
        is_too_long = len(line) > MAX_ROW
        yield None if is_too_long else line
        while is_too_long and line and not line.endswith(b"\n"):
            line = file.readline(BLOCK)


def read_lines(lines: Iterable[bytes | None]) -> Iterator[tuple[int, Row | DataError]]:
    """Yield the row of each line that is not blank, with the line's number; None is a line that is too long.

    Raises:
        DataError: When the text is one JSON list rather than a row a line.
    """
    is_first = True
    for number, line in enumerate(lines, start=1):
        if line is None:
            yield number, DataError(f"has more than the {MAX_ROW:,} bytes allowed", line=number)
            continue
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


def count_rows(path: Path) -> int | None:
    """Return about how many rows a file has, or None where finding out costs as much as reading it."""
    if path == STANDARD_INPUT:
        return None
    with path.open("rb") as file:
        start = file.read(START)
        if is_table(start):
            return count_table(path, start)
        if start.startswith(GZIP_MAGIC) or is_list(start):
            return None
        file.seek(0)
        num_lines, last = 0, b"\n"
        while block := file.read(1 << 20):
            num_lines += block.count(b"\n")
            last = block[-1:]
        return num_lines + (last != b"\n")
