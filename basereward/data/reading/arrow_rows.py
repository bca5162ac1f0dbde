"""Rows of Parquet and Arrow files, read a few at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from basereward.data.reading.json_rows import MAX_ROW
from basereward.data.reading.row import Row
from basereward.errors import DataError

PARQUET_MAGIC = b"PAR1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
FILE_MAGIC = b"ARROW1"
"""First bytes of Parquet, of Arrow's stream (`Dataset.save_to_disk`) and of Arrow's file format."""

BATCH_ROWS = 32
"""Rows of a table in memory at once: each may hold images of some megabytes."""


def is_table(magic: bytes) -> bool:
    """Tell by its first bytes whether a file is a table."""
    return magic.startswith((PARQUET_MAGIC, STREAM_MAGIC, FILE_MAGIC))


def read_table(path: Path, magic: bytes) -> Iterator[tuple[int, Row | DataError]]:
    """Yield each row of a Parquet or Arrow file with its number, counted from 1.

    Raises:
        DataError: When the file is damaged.
    """
    import pyarrow.ipc
    import pyarrow.parquet

    number = 0
    try:
        with _batches(pyarrow, path, magic) as batches:
            for batch in batches:
                _check_columns(batch.schema, pyarrow)
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    for row in _rows(batch.slice(start, BATCH_ROWS)):
                        number += 1
                        yield number, row
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        kind = "Parquet" if magic.startswith(PARQUET_MAGIC) else "Arrow"
        raise DataError(f"the {kind} file is damaged after row {number}") from error


def _check_columns(fields: Any, pyarrow: Any) -> None:
    """Refuse columns of one name, of which a row could hold the last alone.

    Raises:
        DataError: Naming the column.
    """
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            raise DataError(f"has the column {field.name!r} twice")
        seen.add(field.name)
        inner = field.type
        while pyarrow.types.is_list(inner) or pyarrow.types.is_large_list(inner):
            inner = inner.value_type
        if pyarrow.types.is_struct(inner):
            _check_columns(inner, pyarrow)


def count_table(path: Path, magic: bytes) -> int | None:
    """Return the number of rows of a table; None where it is damaged."""
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        if magic.startswith(PARQUET_MAGIC):
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        with _batches(pyarrow, path, magic) as batches:
            return int(sum(batch.num_rows for batch in batches))
    except (OSError, ValueError, pyarrow.ArrowException):
        return None


def _check_sizes(metadata: Any) -> None:
    """Refuse a Parquet file whose rows unpack to more than a row may have, each with its share of its group.

    Raises:
        DataError: Naming the group.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > MAX_ROW * max(group.num_rows, 1):
            raise DataError(f"row group {number} has more than the {MAX_ROW:,} bytes a row allowed")


def _rows(batch: Any) -> Iterator[Row | DataError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # One text that is not UTF-8 spoils its batch; alone, each other row is read.
        for at in range(batch.num_rows):
            try:
                yield from batch.slice(at, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield DataError(f"holds a text that is not UTF-8: {error.reason} at byte {error.start}")


@contextlib.contextmanager
def _batches(pyarrow: Any, path: Path, magic: bytes) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if magic.startswith(PARQUET_MAGIC):
            file = stack.enter_context(pyarrow.parquet.ParquetFile(path, pre_buffer=False))
            _check_sizes(file.metadata)
            yield file.iter_batches(batch_size=BATCH_ROWS)
        else:
            # Mapped, so that only what is looked at is in memory.
            file = stack.enter_context(pyarrow.memory_map(str(path)))
            if magic.startswith(FILE_MAGIC):
                reader = stack.enter_context(pyarrow.ipc.open_file(file))
                yield (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                yield stack.enter_context(pyarrow.ipc.open_stream(file))
