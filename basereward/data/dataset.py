"""Datasets: comparisons in a fixed order, and a reason for each row left out."""

from __future__ import annotations

import abc
import copy
import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from basereward import protocols
from basereward.comparison import Comparison, Place
from basereward.data.columns import (
    ANSWERED_COLUMNS,
    refuse_contradiction,
    unread_column_error,
    unread_columns,
)
from basereward.data.media_paths import Media
from basereward.data.reading.paths import Split, files_of, local_path, media_root, other_splits
from basereward.data.reading.row import Row
from basereward.data.reading.rows import count_rows, read_rows
from basereward.errors import ColumnWarning, DataError
from basereward.storage.reading import parse_json


class SourceRow(NamedTuple):
    """A row, or the reason why it can't be read, and where it stands."""

    row: Row | DataError
    file: Path
    line: int


class Dataset(protocols.Dataset, abc.ABC):
    """An iterable of comparisons, in the same order every time, whose bad rows are listed and not lost.

    A subclass writes `read`. Its constructor takes `(path, *, ...)`.
    """

    detected_by: ClassVar[tuple[str, ...]] = ()
    """Fields whose presence marks a row as this dataset's, where no dataset is named; not inherited."""
    also_detected_by: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Other sets of fields that do so, of formats with several layouts; not inherited."""

    @abc.abstractmethod
    def read(self) -> Iterator[Comparison | DataError]:
        """Yield each row as a comparison, or as the error that says why it is none."""

    def __iter__(self) -> Iterator[Comparison]:
        """Yield the comparisons.

        Raises:
            DataError: For a bad row if `on_bad_row` is "fail"; always for a file that can't be read.
        """
        # A list of its own for each pass, so that two passes at once don't mix theirs.
        self.rejected = rejected = []
        for item in self.read():
            if not isinstance(item, DataError):
                yield item
            elif self.on_bad_row == "fail":
                raise item
            else:
                rejected.append(item)


class FileDataset(Dataset):
    """Rows of files, each turned into a row of our own format by `convert_row`.

    Args:
        path: A file (JSONL or a JSON list, gzipped or not, Parquet or Arrow); a directory of such files, read
            in order of name; one that `datasets` saved; or a data set's id on the hub, as `owner/name`, where
            there is no such path.
        source: Name of the data set in reports, for rows that bring none; the path's stem if not given.
        split: Which files to read where their names tell splits apart, one split or a list; if not given, the
            only split there is, or `train`.
        config: The directory below `path` to read, of data sets that have several.
        media_roots: Directories besides the data set's own that images and videos may lie in.
        media_hosts: Hosts that images may be fetched from.
        ignored_columns: Columns that are left out though it isn't known that they say nothing of the answer.

    Raises:
        DataError: When there is no such file.
    """

    name: ClassVar[str] = ""
    """The data set's name in reports, where all files of the format are of one."""
    columns: Mapping[str, str] = {}
    """The columns that are read, with their meanings. A row with another column that has a value is refused,
    unless it is known to say nothing of the answer (`basereward.data.columns`). Without columns none is."""
    is_rowwise: ClassVar[bool] = True
    """Whether each row alone makes a comparison; False where several rows are joined."""

    def __init__(
        self,
        path: str | Path,
        *,
        source: str | None = None,
        split: Split = None,
        config: str | None = None,
        media_roots: tuple[str, ...] = (),
        media_hosts: tuple[str, ...] = (),
        ignored_columns: tuple[str, ...] = (),
    ) -> None:
        self.path = local_path(path)
        self.ignored_columns = frozenset(ignored_columns)
        self._warned: set[str] = set()
        self.files = self.data_files(split, config)
        if others := other_splits(self.path if config is None else self.path / config, self.files):
            listed = ", ".join(others)
            self.unread_splits = f"{path} has other splits, which are not read: {listed}; see option split"
        self.media = Media(media_root(self.path), roots=media_roots, hosts=media_hosts)
        self.source = source if source is not None else self.name or Path(path).name.split(".")[0]

    def data_files(self, split: Split, config: str | None) -> list[Path]:
        """Return the files to read."""
        return files_of(self.path, split=split, config=config)

    @abc.abstractmethod
    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format; a relative path of an image starts from the directory."""

    def probe(self, num: int) -> Iterator[Comparison | DataError]:
        """Yield about as many items as asked for, the first ones of each file."""
        for file in self.files:
            part = copy.copy(self)
            part.files = [file]
            yield from islice(part.read(), max(1, num // len(self.files)))

    def rows(self) -> Iterator[SourceRow]:
        """Yield each row of each file as it stands there, with its place."""
        for file in self.files:
            for line, row in read_rows(file):
                yield SourceRow(row, file, line)

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield each row of each file as a comparison or an error with its place."""
        for row in self.rows():
            yield self.comparison(*row)

    def comparison(self, row: Row | DataError, file: Path, line: int) -> Comparison | DataError:
        """Return a row as a comparison, or as the error that says why it is none."""
        try:
            if isinstance(row, DataError):
                raise row
            converted = self.converted(row, file.parent)
        except DataError as error:
            # A new error, without the frames of this one, which would keep the row alive.
            return error.at(file=str(file), line=line)
        return self.located(converted, file, line)

    def converted(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format.

        A column that is neither read nor known to say nothing of the answer is an error. A published data set
        is read as its authors describe it: there a column that no format takes for question or answer is left
        out, with one warning a column.

        Raises:
            DataError: When it can't be converted, or is nested as deeply as Python can parse.
        """
        if not self.ignored_columns.isdisjoint(row):
            row = {name: value for name, value in row.items() if name not in self.ignored_columns}
        unread = () if row.keys() <= self.columns.keys() else self._unread_columns(row)
        try:
            converted = self.convert_row(row, directory)
        except RecursionError as error:
            raise DataError("is nested too deeply") from error
        for name in unread:
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(f"{self.source}: the column {name!r} is not read", ColumnWarning, stacklevel=2)
        return converted

    def _unread_columns(self, row: Row) -> list[str]:
        """Return the columns that are left out though it isn't known that they say nothing of the answer.

        Raises:
            DataError: When one may not be left out, or contradicts the order of the responses.
        """
        if not self.name:
            refuse_contradiction(row, self.columns)
        unread = unread_columns(row, self.columns) if self.columns else []
        for name in unread:
            if not self.name or name in ANSWERED_COLUMNS:
                raise unread_column_error(name, self.columns)
        return unread

    def located(self, row: Row, file: Path, line: int) -> Comparison | DataError:
        """Return a row of our own format as a comparison with the paths of its images, or as an error."""
        try:
            located = self.media.located(row, file.parent)
            return comparison_of(located, file=str(file), line=line, source=self.source)
        except DataError as error:
            return error.at(file=str(file), line=line)
        except RecursionError:
            return DataError("is nested too deeply", file=str(file), line=line)

    @property
    def num_rows(self) -> int | None:
        """Rows of all files, blank lines included; None if one is gzipped or a JSON list."""
        counts = [count_rows(file) for file in self.files]
        return None if None in counts else sum(count for count in counts if count is not None)

    def __len__(self) -> int:
        """Return the number of rows, bad ones and blank lines included.

        Raises:
            TypeError: When it is not known before the rows are read.
        """
        num_rows = self.num_rows if self.is_rowwise else None
        if num_rows is None:
            raise TypeError("the number of rows is not known before they are read; count() reads them")
        return num_rows

    def __bool__(self) -> bool:
        return True

    def count(self) -> int:
        """Return how many items `read` yields, blank lines included; by reading if `num_rows` is None."""
        num_rows = self.num_rows
        return super().count() if num_rows is None else num_rows


def comparison_of(row: Row, *, file: str, line: int, source: str = "") -> Comparison:
    """Return a row of our own format as a comparison that knows its place.

    Args:
        row: The row, its images found; `meta` may be JSON, as Parquet files hold it.
        file: Where it was read.
        line: Its number there.
        source: Name of the data set, if the row has none.

    Raises:
        DataError: Naming the field that is wrong.
    """
    filled: dict[str, Any] = dict(row)
    if filled.get("id") in (None, ""):
        filled["id"] = f"{os.path.basename(file)}:{line}"
    if filled.get("source") in (None, ""):
        filled["source"] = source
    filled["meta"] = _meta(row.get("meta"))
    return Comparison.from_dict(filled, place=Place(file, line))


def _meta(meta: Any) -> Mapping[str, Any]:
    if meta is None or meta == "":
        return {}
    if isinstance(meta, str):
        try:
            meta = parse_json(meta)
        except ValueError as error:
            if meta.lstrip().startswith("{"):
                raise DataError(f"is not JSON that can be read: {error}", field="meta") from error
    if not isinstance(meta, Mapping):
        raise DataError(f"must be an object, not a {type(meta).__name__}", field="meta")
    return meta
