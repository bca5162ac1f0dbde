"""Data sets whose successive rows of one prompt are joined to one comparison."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset, FileDataset
from basereward.data.reading.row import Row
from basereward.errors import DataError

MAX_JOINED = 64
"""Rows that are joined at most, so that a file of one prompt does not fill the memory."""


class Placed(NamedTuple):
    """A row and where it was read."""

    row: Row
    file: Path
    line: int


class GroupedDataset(FileDataset):
    """Rows of files, of which those of one prompt follow each other and become one comparison.

    A subclass says by `key` what rows belong together, and joins them in `joined`. A row that `convert_row`
    refuses is listed by itself, and the others of its prompt are joined without it.
    """

    is_rowwise: ClassVar[bool] = False

    @abc.abstractmethod
    def key(self, row: Row) -> Any:
        """Return a value that rows of one prompt share; None for a row that stands alone."""

    @abc.abstractmethod
    def joined(self, rows: list[Row]) -> list[Row]:
        """Return the comparisons, in our own format, of rows in our own format that belong together.

        Raises:
            DataError: When they make none.
        """

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield the comparisons and the errors of single rows, in the order of their first rows."""
        group: list[Placed] = []
        group_key: Any = None
        for row, file, line in self.rows():
            if isinstance(row, DataError):
                yield row.at(file=str(file), line=line)
                continue
            try:
                converted, key = self.converted(row, self.media_start(file)), self.key(row)
            except DataError as error:
                yield error.at(file=str(file), line=line)
                continue
            if group and (key is None or key != group_key or len(group) >= MAX_JOINED):
                yield from self._comparisons(group)
                group = []
            group_key = key
            group.append(Placed(converted, file, line))
        if group:
            yield from self._comparisons(group)

    def count(self) -> int:
        """Return how many items `read` yields, by reading."""
        return Dataset.count(self)

    def _comparisons(self, group: list[Placed]) -> Iterator[Comparison | DataError]:
        try:
            rows = self.joined([placed.row for placed in group])
        except DataError as error:
            for _, file, line in group:
                yield error.at(file=str(file), line=line)
            return
        # As many comparisons as rows are the rows themselves; one of all rows has the place of the first.
        for placed, row in zip(group, rows, strict=False):
            yield self.located(row, placed.file, placed.line)
