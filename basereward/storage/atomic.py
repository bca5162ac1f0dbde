"""Files and directories replaced at once: a kill at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basereward.errors import ModelError


@contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """Give a new directory to write in, and put it in the place of `directory` once all is on disk.

    A kill at any moment leaves either the old directory or the new one, whole.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists() and not directory.is_dir():
        raise ModelError(f"{directory} is a file; give a directory")
    aside = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for path in (*aside.rglob("*"), aside):
        fsync(path)
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    aside.rename(directory)
    fsync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
