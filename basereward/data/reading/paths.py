"""Resolve a path or hub id to its data files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from basereward.errors import DataError, shown
from basereward.storage.hub import is_hub_id, snapshot
from basereward.storage.reading import read_json

STANDARD_INPUT = Path("-")
"""The path that names standard input, which holds JSONL and can be read once."""

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".parquet", ".arrow")
"""Endings of the data files of a directory; a single file's format is recognized by its content."""

JSON_SUFFIXES = (".json", ".json.gz")
"""Endings of data files in directories that have none of the others; settings are often kept in `.json`."""

FILE_SUFFIXES = (*SUFFIXES, *JSON_SUFFIXES, ".gz", ".zip", ".toml")

SETTINGS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json", "meta.json")
"""JSON files that hold no rows."""

SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}\.")
"""The name of a shard of the hub's, which begins with its split: `train-00000-of-00014.parquet`."""

USUAL_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval")
USUAL_SPLIT = "train"

Split: TypeAlias = str | tuple[str, ...] | None
"""The name of a split, several names, or None for the usual one."""


def local_path(path: str | Path) -> Path:
    """Return a path; for a hub's id (`owner/name` or `owner/name@revision`) that of its download.

    A name that ends like a data file is no id.

    Raises:
        DataError: When there is no such path, and no data set of that name can be downloaded.
    """
    if not isinstance(path, str) or path.endswith(FILE_SUFFIXES) or not is_hub_id(path):
        return Path(path)
    try:
        return snapshot(str(path), "dataset")
    except OSError as error:
        raise DataError(
            "no such file or directory, and no data set of this name can be downloaded", file=str(path)
        ) from error


def existing_directory(path: str | Path, option: str) -> Path:
    """Return the path of a directory that an option names.

    Raises:
        DataError: When there is none.
    """
    if not os.path.isdir(path):
        raise DataError(f"option {option} is {shown(str(path))}, and there is no such directory")
    return Path(path)


def media_root(path: Path) -> Path:
    """Return the directory that a data set's images must lie in.

    A download of the hub's consists of links to its files, so there it is the directory of both.
    """
    directory = path if path.is_dir() else path.parent
    for parent in (directory, *directory.parents):
        if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
            return parent.parent.parent
    return directory


def files_of(path: Path, *, split: Split = None, config: str | None = None) -> list[Path]:
    """Return the file, or the data files of a directory in the order of their names.

    Args:
        path: A file, or a directory: of data files, or of a `data` directory or directories that hold them;
            saved by `datasets` (`save_to_disk`), one split or several; or downloaded from the hub.
        split: Which files to take where their names tell splits apart, as `train-00000-of-00002.parquet`,
            `train.jsonl` and a saved `DatasetDict` do; if not given, the only split there is, or `train`.
            Files whose names name no split are of every split.
        config: A directory below the path to read instead of it, as data sets with several have.

    Raises:
        DataError: When there is none.
    """
    if config is not None:
        path = path / config
    if path == STANDARD_INPUT or path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError("is no regular file" if path.exists() else "no such file", file=str(path))
    if (path / "dataset_dict.json").is_file():
        names = _splits_of(_splits(path), split, path)
        return [file for name in names for file in _saved_files(_split_directory(path, name))]
    if (path / "state.json").is_file():
        return _saved_files(path)
    files = _data_files(path)
    named = {name for file in files if (name := _split_name(file)) is not None}
    chosen = _splits_of(sorted(named), split, path) if named else []
    return [file for file in files if _split_name(file) in (*chosen, None)]


def other_splits(path: Path, files: Sequence[Path]) -> list[str]:
    """Return the splits of a directory that are not read, by the files that are."""
    if (path / "dataset_dict.json").is_file():
        read = {file.parent.name for file in files}
        return sorted(set(_splits(path)) - read)
    if not path.is_dir() or (path / "state.json").is_file():
        return []
    all_files = _data_files(path)
    if not set(files) <= set(all_files):  # a data set that lists its files by itself
        return []
    return sorted({name for file in all_files if file not in files and (name := _split_name(file))})


def _data_files(path: Path) -> list[Path]:
    for directories in ([path], [path / "data"], sorted(path.iterdir())):
        for suffixes in (SUFFIXES, JSON_SUFFIXES):
            files = [
                file
                for directory in directories
                if directory.is_dir()
                for file in sorted(directory.iterdir())
                if file.name.endswith(suffixes) and file.name not in SETTINGS and file.is_file()
            ]
            if files:
                return files
    names = ", ".join("*" + suffix for suffix in (*SUFFIXES, *JSON_SUFFIXES))
    raise DataError(f"the directory has no file named {names}", file=str(path))


def _split_name(file: Path) -> str | None:
    if (shard := SHARD.match(file.name)) is not None:
        return shard.group(1)
    stem = file.name.split(".")[0]
    return stem if stem in USUAL_SPLITS else None


def _splits_of(splits: list[str], split: Split, path: Path) -> list[str]:
    """Return the splits to read.

    Raises:
        DataError: When there is no such split, or none is given where none is the usual one.
    """
    if split is None and len(splits) == 1:
        return splits
    chosen = [USUAL_SPLIT] if split is None else [split] if isinstance(split, str) else list(split)
    listed = ", ".join(sorted(splits))
    if not chosen:
        raise DataError(f"is to be read without any split; splits: {listed}", file=str(path))
    for name in chosen:
        if name not in splits:
            if split is None:
                several = f"one or a list, as split = {sorted(splits)[:2]}"
                raise DataError(f"has the splits {listed}; name {several}", file=str(path))
            raise DataError(f"has no split {name!r}; splits: {listed}", file=str(path))
    return list(dict.fromkeys(chosen))


def _splits(path: Path) -> list[str]:
    """Return the splits that a saved `DatasetDict` names.

    Raises:
        DataError: When it names something that is no directory's name.
    """
    file = path / "dataset_dict.json"
    splits = _setting(file, "splits")
    for name in splits:
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise DataError(f"names the split {shown(name)}, which is no directory's name", file=str(file))
    return splits


def _split_directory(path: Path, name: str) -> Path:
    """Return the directory of a split, which must lie in that of the data set."""
    directory = path / name
    if Path(os.path.realpath(directory)).parent != Path(os.path.realpath(path)):
        raise DataError("leads out of the data set's directory", file=str(directory))
    return directory


def _saved_files(path: Path) -> list[Path]:
    """Return the files of a split that `datasets` saved."""
    files = []
    for entry in _setting(path / "state.json", "_data_files"):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not (path / os.path.basename(name)).is_file():
            raise DataError(f"names {shown(name)}, which is no file there", file=str(path / "state.json"))
        files.append(path / os.path.basename(name))
    return files


def _setting(file: Path, key: str) -> list[Any]:
    try:
        value = read_json(file)[key]
        if not isinstance(value, list):
            raise TypeError(f"{key} is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"is no {file.name} of a saved data set", file=str(file)) from error
    return value
