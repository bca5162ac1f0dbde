"""Which format a row is in, told by its fields."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from basereward.data.reading.paths import files_of, local_path
from basereward.data.reading.row import Row
from basereward.data.reading.rows import read_rows
from basereward.data.trl import trl_row
from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    from basereward.data.dataset import FileDataset

FORMATS: Final = {
    "basereward": ("prompt", "responses"),
    "sharegpt": ("conversations", "chosen", "rejected"),
    "povid": ("conversations", "rejected_conversations"),
    "ixc": ("conversations_a", "conversations_b"),
    "wildvision-battle": ("conversation_a", "conversation_b", "winner"),
    "r1-reward-rl": ("message", "question", "answer"),
    "vlfeedback": ("prompt", "completions"),
    "ultrafeedback": ("instruction", "completions"),
    "shp": ("history", "human_ref_A", "human_ref_B", "labels"),
    "rlaif-v": ("question", "chosen", "rejected"),
    "trl": ("chosen", "rejected"),
}
"""The fields of each format that is told by its fields; the first that fits counts."""


def format_of(row: Row) -> str | None:
    """Return the name of a row's format, or None if it has the fields of none."""
    # Beside `chosen` and `rejected` a prompt is TRL's, whatever else there is.
    if "prompt" in row and "chosen" in row and "responses" not in row:
        return "trl"
    return next((name for name, fields in FORMATS.items() if all(field in row for field in fields)), None)


def own_row(row: Row) -> Row:
    """Return a row of our own format or TRL's in our own, images still to be found.

    Raises:
        DataError: When it has the fields of neither, or a field is wrong.
    """
    if "responses" in row:
        return row
    if "chosen" in row and "rejected" in row:
        return trl_row(row)
    raise DataError(unknown_format(row, "basereward", "trl"))


def unknown_format(row: Row, *names: str) -> str:
    """Say what a row has, and what it should have."""
    known = "; ".join(f"{name} ({', '.join(FORMATS[name])})" for name in names or FORMATS)
    return f"the fields {', '.join(map(str, row)) or '(none)'} are of no known format; formats: {known}"


def read_comparisons(
    path: str | Path,
    *,
    format: str | None = None,
    source: str | None = None,
    media_roots: tuple[str, ...] = (),
) -> FileDataset:
    """Open a file or directory of comparisons.

    Args:
        path: A file or directory, as of `FileDataset`.
        format: One of `FORMATS`; told by the fields of the first readable row if not given.
        source: Name of the data set in reports, for rows that bring none; the path's stem if not given.
        media_roots: Directories besides the data's own that images and videos may lie in.

    Raises:
        DataError: When there is no such file, or its format can't be told.
        ConfigError: When the format is unknown.
    """
    if format is None:
        format = detected(path)
    elif format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; formats: {', '.join(FORMATS)}")
    from basereward.plugins.builtin import basereward_datasets

    module, _, name = str(basereward_datasets()[format]).partition(":")
    dataset: type[FileDataset] = getattr(importlib.import_module(module), name)
    return dataset(path, source=source, media_roots=media_roots)


def detected(path: str | Path, *, split: str | None = None, config: str | None = None) -> str:
    """Return the format of a file or directory, told by the fields of its first readable row.

    Args:
        path: A file or directory, as of `FileDataset`.
        split: As of `FileDataset`.
        config: Likewise.

    Raises:
        DataError: When there is no such file, no row in it, or its format can't be told.
    """
    path = local_path(path)
    first: DataError | None = None
    for file in files_of(path, split=split, config=config):
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
