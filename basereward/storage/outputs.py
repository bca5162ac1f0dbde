"""Places that outputs are written to: no model, no input, and nothing of somebody else is replaced."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from basereward.errors import ConfigError, shown
from basereward.storage.reading import opened

MODEL_FILE = "reward_config.json"
"""The file by which a directory is known as a model's."""

MAX_MARKED_BYTES = 64 * 2**20
"""Bytes in which a file's mark is looked for."""


def real_path(path: Path) -> Path:
    """Return a path without links; of links in a circle, as far as they lead.

    Raises:
        ConfigError: When it is none, as with a NUL in it.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise ConfigError(f"{shown(str(path))} is no path: {error}") from error


def check_outside_models(path: Path, option: str) -> None:
    """Refuse a place in the directory of a model, which can't be loaded with a file too many.

    Args:
        path: The file or directory that is to be written.
        option: The option that names it, as the error calls it.

    Raises:
        ConfigError: Naming the model's directory.
    """
    place = real_path(path)
    for directory in (place, *place.parents):
        if (directory / MODEL_FILE).is_file():
            raise ConfigError(f"{option} {path}: {directory} is the directory of a model; name another place")


def check_is_no_input(path: Path, option: str, inputs: Iterable[str | Path]) -> None:
    """Refuse an output that is one of the inputs, or a file within one.

    Args:
        path: The file or directory that is to be written.
        option: The option that names it.
        inputs: Files and directories that are read; names of what is no file are passed over.

    Raises:
        ConfigError: Naming it.
    """
    place = real_path(path)
    for source in map(Path, inputs):
        if source.exists() and (place == real_path(source) or (path.exists() and path.samefile(source))):
            raise ConfigError(f"{path} is the input; give {option} another place")


def check_file(path: Path, option: str, *, mark: bytes, overwrite: bool) -> None:
    """Check that a file may be written: a new one, or one in the place of one that a command has written.

    Args:
        path: The file.
        option: The option that names it.
        mark: Bytes that stand in what the command writes.
        overwrite: Whether it may replace a file without the mark.

    Raises:
        ConfigError: When it would replace something else, or lie in a model's directory.
    """
    check_outside_models(path, option)
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a directory; name a file")
    if overwrite or not path.is_file() or path.stat().st_size == 0:
        return
    with opened(path) as file:
        is_ours = mark in file.read(MAX_MARKED_BYTES)
    if not is_ours:
        raise ConfigError(
            f"{option} {path} exists and was not written by this command; name another file, or replace it "
            "with --overwrite"
        )


def claim_directory(directory: Path, option: str, *, mark: str, names: Collection[str]) -> None:
    """Make and mark a directory that takes files of known names, unless it holds some that may be somebody
    else's, or is a model's.

    Args:
        directory: The directory.
        option: The option that names it.
        mark: The name of the file that marks it: what is written there may then replace the names.
        names: The names.

    Raises:
        ConfigError: When it does, or can't be made.
    """
    check_outside_models(directory, option)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / mark).is_file():
            taken = [name for name in names if os.path.lexists(directory / name)]
            if taken:
                raise ConfigError(
                    f"{option} {directory} holds {', '.join(taken)} and no {mark}, so that they may be "
                    f"somebody else's; give another directory, or make {mark} in it to replace them"
                )
            (directory / mark).touch()
    except OSError as error:
        raise ConfigError(f"{option} {directory}: can't be made: {error.strerror}") from error


def check_model_output(directory: Path, inputs: Iterable[str | Path], *, overwrite: bool) -> None:
    """Check that the directory of a model may be written: not within another model's, and not in the place of
    what it is made of.

    Args:
        directory: The directory.
        inputs: The directories that are read.
        overwrite: Whether it may replace a model.

    Raises:
        ConfigError: When it may not.
    """
    is_empty = directory.is_dir() and not any(directory.iterdir())
    if os.path.lexists(directory) and not is_empty and not overwrite:
        raise ConfigError(f"--output {directory} exists; --overwrite replaces it")
    check_is_no_input(directory, "--output", inputs)
    place = real_path(directory)
    for source in inputs:
        if place in real_path(Path(source)).parents:
            raise ConfigError(f"--output {directory} holds the input {source}; give another directory")
    check_outside_models(place.parent, "--output")
