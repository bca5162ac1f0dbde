"""Base of benchmarks whose annotation lies in several files, a file or a directory for each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from basereward.data.dataset import SourceRow
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.data.reading.rows import read_rows
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark

PART = "basereward part"
"""The key under which `convert_row` finds the name of a row's part."""


class PartedBenchmark(Benchmark):
    """A benchmark of several parts, some of which may be of a kind that is not supported.

    Rows that are not supported are neither comparisons nor rejected: they are counted, and `remarks` says so.

    Args:
        path: A file of one part; or the directory of all of them, or of some.
        images: The directory that paths of images and videos start from, if they don't lie beside the files.
    """

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Globs of each part's files in the benchmark's directory, by the part's name."""
    unsupported_parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Likewise of the parts that are not supported."""
    why_unsupported: ClassVar[str] = "the responses are no texts"

    def __init_subclass__(cls) -> None:
        """List the files of all parts."""
        super().__init_subclass__()
        cls.patterns = tuple(glob for globs in cls.parts.values() for glob in globs)

    def __init__(self, path: str | Path, *, images: Path | None = None) -> None:
        super().__init__(path, images=images)
        if images is None and self.path.is_dir():
            self.images = self.path
        self.unread_splits = ""  # the files of other parts, which `remarks` tells
        self._unsupported: Counter[str] = Counter()

    def data_files(self, split: Split, config: str | None) -> list[Path]:
        """Return the files of the supported parts."""
        if not self.path.is_dir():
            files = super().data_files(split, config)
            self.part_of(self.path)
            return files
        files = [file for globs in self.parts.values() for file in _files(self.path, globs)]
        if not files:
            wanted = " or ".join(self.patterns)
            raise DataError(f"no {self.title} is here: it has no {wanted}", file=str(self.path))
        return files

    def part_of(self, file: Path) -> str:
        """Return the name of a file's part.

        Raises:
            DataError: When it is of none that is supported.
        """
        for part, globs in self.parts.items():
            if any(file.match(glob) for glob in globs):
                return part
        raise DataError(f"is no file of a part that is supported: {', '.join(self.patterns)}", file=str(file))

    def rows_of(self, file: Path) -> Iterator[tuple[int, Row | DataError]]:
        """Yield each row of a file with its number."""
        return read_rows(file)

    def is_supported(self, row: Row) -> bool:
        """Tell whether a row of a supported part is one itself."""
        return True

    def rows(self) -> Iterator[SourceRow]:
        """Yield each supported row with its part, and its place."""
        self._unsupported = Counter()
        for file in self.files:
            part = self.part_of(file)
            for number, row in self.rows_of(file):
                if isinstance(row, DataError):
                    yield SourceRow(row, file, number)
                elif self.is_supported(row):
                    yield SourceRow({**row, PART: part}, file, number)
                else:
                    self._unsupported[part] += 1

    @property
    def num_rows(self) -> None:
        """Not known before the files are read, since not every row is supported."""
        return None

    @property
    def remarks(self) -> Sequence[str]:
        """The number of rows of each part that are not supported; of supported parts after reading alone."""
        counts = dict(self._unsupported)
        for part, globs in self.unsupported_parts.items() if self.path.is_dir() else ():
            if files := _files(self.path, globs):
                counts[part] = sum(1 for file in files for _ in self.rows_of(file))
        if not counts:
            return ()
        listed = ", ".join(f"{part} {count:,}" for part, count in counts.items())
        return (f"Not supported, since {self.why_unsupported}: {sum(counts.values()):,} rows ({listed}).",)

    def _annotation_file(self, path: Path) -> Path:
        """Return the path as it is: a directory is that of all files."""
        return path


def _files(directory: Path, globs: Sequence[str]) -> list[Path]:
    """Return the files of the first glob that has any."""
    for glob in globs:
        if files := sorted(directory.glob(glob)):
            return files
    return []
