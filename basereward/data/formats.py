"""Recognize the format of a file or a row by its fields."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.data.dataset import Dataset, FileDataset
from basereward.data.media_paths import Media
from basereward.data.reading.paths import STANDARD_INPUT, Split, files_of, local_path
from basereward.data.reading.row import Row
from basereward.data.reading.rows import read_rows
from basereward.errors import ConfigError, DataError, PluginError
from basereward.message import is_filled
from basereward.plugins.loading import warn
from basereward.plugins.options import resolved_options
from basereward.plugins.plugin_manager import PluginManager, manager

MAX_CACHED = 1000
"""Sets of columns whose format is remembered."""


def formats(plugins: PluginManager | None = None) -> dict[str, type[Dataset]]:
    """Return the datasets whose rows can be recognized, by name; by default of this process's plugins."""
    plugins = plugins or manager()
    datasets = {}
    for name in plugins.names("dataset"):
        try:
            dataset = plugins.load("dataset", name)
        except PluginError as error:
            warn(f"its rows can't be recognized: {error}")
            continue
        # Not inherited: the fields of a published set in TRL's format do not distinguish it from others.
        if issubclass(dataset, Dataset) and signatures(dataset):
            datasets[name] = dataset
    return datasets


def format_of(row: Row, formats: Mapping[str, type[Dataset]]) -> str | None:
    """Return the name of the format with the most fields of those that a row has all fields of.

    Our own format comes before all others, and TRL's explicit prompt counts as a third field of its format.
    Columns without a value count only where the others tell nothing.
    """
    filled = {name for name, value in row.items() if is_filled(value)}
    fitting = _fitting(filled, formats) or _fitting(row.keys(), formats)
    if "basereward" in fitting:
        return "basereward"
    best = max(fitting, key=lambda name: fitting[name], default=None)
    if "prompt" in row and "chosen" in row and "trl" in formats and fitting.get(best or "", 0) <= 3:
        return "trl"
    return best


def _fitting(columns: Collection[str], formats: Mapping[str, type[Dataset]]) -> dict[str, int]:
    """Return the most fields of each format that all are among some columns."""
    sizes = {
        name: max((len(fields) for fields in signatures(dataset) if set(fields) <= set(columns)), default=0)
        for name, dataset in formats.items()
    }
    return {name: size for name, size in sizes.items() if size}


def signatures(dataset: type[Dataset]) -> list[tuple[str, ...]]:
    """Return the sets of fields by which a dataset's rows are recognized."""
    declared = vars(dataset)
    return (
        [declared["detected_by"], *declared.get("also_detected_by", ())]
        if declared.get("detected_by")
        else []
    )


NUM_NEAREST = 3
"""Formats of which an error says what a row lacks; all others are named only."""


def unknown_format(row: Row, formats: Mapping[str, type[Dataset]]) -> str:
    """Return an error's text that says which fields a row has, and what it lacks to be of a format.

    Nearest are the formats of which a row has some field and lacks the fewest.
    """
    lacking = {
        name: min(
            (
                [field for field in fields if field not in row]
                for fields in signatures(dataset)
                if any(field in row for field in fields)
            ),
            key=len,
            default=None,
        )
        for name, dataset in formats.items()
    }
    begun = {name: fields for name, fields in lacking.items() if fields is not None}
    nearest = sorted(begun, key=lambda name: (len(begun[name]), name))[:NUM_NEAREST]
    hints = "".join(f"; to be {name}, they lack {', '.join(begun[name])}" for name in nearest)
    others = ", ".join(name for name in formats if name not in nearest)
    return (
        f"the fields {', '.join(map(str, row)) or '(none)'} are of no known format{hints}; "
        f"{'other ' if nearest else ''}formats: {others}; `basereward show dataset NAME` tells its fields"
    )


class DetectedDataset(FileDataset):
    """Rows in any of the formats that can be recognized, each read by the dataset of its own format."""

    @cached_property
    def _formats(self) -> dict[str, type[Dataset]]:
        return {
            name: dataset
            for name, dataset in formats().items()
            if issubclass(dataset, FileDataset) and dataset.is_rowwise
        }

    @cached_property
    def _names(self) -> dict[tuple[str | None, ...], str | None]:
        """The format by the columns of a row, and those that have a value."""
        return {}

    @cached_property
    def _datasets(self) -> dict[str, FileDataset]:
        return {}

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        columns = (*row, None, *[name for name, value in row.items() if is_filled(value)])
        if columns not in self._names:
            if len(self._names) >= MAX_CACHED:
                self._names.clear()
            self._names[columns] = format_of(row, self._formats)
        name = self._names[columns]
        if name is None:
            raise DataError(unknown_format(row, self._formats))
        if name not in self._datasets:
            dataset = manager().build("dataset", Component(name, {"path": str(self.files[0])}))
            dataset.ignored_columns = self.ignored_columns
            self._datasets[name] = dataset
        return self._datasets[name].converted(row, directory)


def open_rows(
    path: str | Path | None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    plugins: PluginManager | None = None,
) -> Dataset:
    """Open rows by a dataset's name, or recognize the format of each row where none is named.

    Args:
        path: A file or directory, as of `FileDataset`; None for a dataset that needs none.
        name: The name of a dataset.
        options: Its options.
        plugins: The plugins that provide datasets; this process's if not given.

    Raises:
        DataError: When there is no such file.
        PluginError: When there is no dataset of that name.
        ConfigError: When it has no such option, or an option's value is not allowed.
    """
    if name is None:
        assert path is not None
        return DetectedDataset(path, **resolved_options(DetectedDataset, options or {}, "the dataset"))
    paths = {} if path is None else {"path": str(path)}
    dataset: Dataset = (plugins or manager()).build("dataset", Component(name, {**paths, **(options or {})}))
    return dataset


def row_reader(name: str | None = None, options: Mapping[str, Any] | None = None) -> FileDataset:
    """Return a dataset whose `comparison` converts rows that are in memory; it reads no file.

    Args:
        name: The name of a dataset; None to recognize each row's format.
        options: Its options.

    Raises:
        ConfigError: When the dataset joins several rows to a comparison.
    """
    dataset = open_rows("-", name, options)
    if not isinstance(dataset, FileDataset) or not dataset.is_rowwise:
        raise ConfigError(f"dataset {name!r} joins rows, which have to be read from a file")
    return dataset


def comparisons_of(items: Iterable[Comparison | Mapping[str, Any]]) -> Iterator[Comparison]:
    """Yield comparisons, and rows in any layout that files may have as comparisons.

    Relative paths of images start from the working directory.

    Raises:
        DataError: Naming the number of a row that is none, counted from 1, and its field.
    """
    reader: FileDataset | None = None
    for number, item in enumerate(items, start=1):
        if isinstance(item, Comparison):
            yield item
            continue
        if not isinstance(item, Mapping):
            raise DataError(
                f"is a {type(item).__name__}; give a Comparison, or a row such as "
                '{"prompt": "...", "responses": ["...", "..."]}',
                file="rows",
                line=number,
            )
        if reader is None:
            reader = row_reader()
            reader.media = Media(Path(), roots=("/",))
        comparison = reader.comparison(dict(item), Path("rows"), number)
        if isinstance(comparison, DataError):
            raise comparison
        yield comparison


def read_comparisons(
    path: str | Path,
    *,
    format: str | None = None,
    source: str | None = None,
    media_dir: str | None = None,
    media_roots: tuple[str, ...] = (),
    plugins: PluginManager | None = None,
) -> Dataset:
    """Open a file or directory of comparisons.

    Args:
        path: A file or directory, as of `FileDataset`.
        format: The name of a dataset; recognized by the fields of the first readable row if not given.
        source: Name of the data set in reports, for rows that bring none; the path's stem if not given.
        media_dir: The directory that relative paths of images and videos start from; that of the file if not
            given.
        media_roots: Directories besides the data's own that images and videos may lie in.
        plugins: The plugins that provide datasets; this process's if not given.

    Raises:
        DataError: When there is no such file, or its format can't be recognized.
        PluginError: When there is no dataset of that name.
        ConfigError: When the dataset has no such option.
    """
    options: dict[str, Any] = {"source": source, "media_dir": media_dir, "media_roots": media_roots}
    return open_rows(
        path,
        format or detected(path, plugins=plugins),
        {key: value for key, value in options.items() if value},
        plugins,
    )


def detected(
    path: str | Path,
    *,
    split: Split = None,
    config: str | None = None,
    plugins: PluginManager | None = None,
) -> str:
    """Return the name of the dataset that reads a file or directory, by the fields of its first readable row.

    Path, split and config are as of `FileDataset`, plugins as of `formats`.

    Raises:
        DataError: When there is no such file, no row in it, or its format can't be recognized.
    """
    path = local_path(path)
    if path == STANDARD_INPUT:
        raise DataError("standard input is read only once; name its format by --dataset")
    recognizable = formats(plugins)
    first: DataError | None = None
    for file in files_of(path, split=split, config=config):
        for line, row in read_rows(file):
            if isinstance(row, DataError):
                first = first or row.at(file=str(file))
                continue
            name = format_of(row, recognizable)
            if name is None:
                raise DataError(unknown_format(row, recognizable), file=str(file), line=line)
            return name
    if first is not None:
        raise DataError(f"has no row that can be read; the first: {first}", file=str(path))
    raise DataError("has no rows", file=str(path))
