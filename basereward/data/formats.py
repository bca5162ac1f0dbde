"""Which format a row is in, told by its fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from basereward.data.native import NativeDataset, is_native, native_row
from basereward.data.reading import Row, files_of, read_rows
from basereward.data.trl import TRLDataset, is_trl, trl_row
from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from basereward.data.dataset import FileDataset


class Format(NamedTuple):
    """A format: its signature, what reads one row, and what reads a file."""

    claims: Callable[[Row], bool]
    own_row: Callable[[Row, Path], Row]
    dataset: type[FileDataset]
    fields: str


FORMATS: Final = {
    "basereward": Format(is_native, native_row, NativeDataset, "prompt, responses"),
    "trl": Format(is_trl, trl_row, TRLDataset, "chosen, rejected, perhaps prompt"),
}


def format_of(row: Row) -> str | None:
    """Return the name of a row's format, or None if it has the fields of none."""
    return next((name for name, format in FORMATS.items() if format.claims(row)), None)


def own_row(row: Row, directory: Path) -> Row:
    """Return a row of any known format in our own.

    Raises:
        DataError: When it has the fields of no known format, or a field is wrong.
    """
    name = format_of(row)
    if name is None:
        raise DataError(unknown_format(row))
    return FORMATS[name].own_row(row, directory)


def unknown_format(row: Row) -> str:
    """Say what a row has, and what it should have."""
    known = "; ".join(f"{name} ({format.fields})" for name, format in FORMATS.items())
    return f"the fields {', '.join(map(str, row)) or '(none)'} are of no known format; formats: {known}"


def read_comparisons(
    path: str | Path, *, format: str | None = None, source: str | None = None
) -> FileDataset:
    """Open a file or directory of comparisons.

    Args:
        path: JSONL, gzipped or not, or Parquet; or a directory of such files.
        format: "basereward" or "trl"; told by the fields of the first readable row if not given.
        source: Name of the data set in reports, for rows that bring none; the path's stem if not given.

    Raises:
        DataError: When there is no such file, or its format can't be told.
        ConfigError: When the format is unknown.
    """
    if format is None:
        format = _detected(Path(path))
    elif format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; formats: {', '.join(FORMATS)}")
    return FORMATS[format].dataset(path, source=source)


def _detected(path: Path) -> str:
    first: DataError | None = None
    for file in files_of(path):
        for line, row in read_rows(file):
            if isinstance(row, DataError):
                first = first or row.at(file=str(file))
                continue
            name = format_of(row)
            if name is None:
                raise DataError(unknown_format(row), file=str(file), line=line)
            return name
    if first is not None:
        raise DataError(f"has no row that can be read; the first: {first}", file=str(path))
    raise DataError("has no rows", file=str(path))
