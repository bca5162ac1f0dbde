"""Files and directories replaced at once: a kill at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from basereward.errors import ModelError

ABANDONED_SECONDS = 24 * 3600.0
"""Age from which a file beside its destination counts as left behind by a killed process."""


@contextmanager
def replace_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Yield the path of a new file to write, and put it in the place of `path` once it is on disk.

    An exception removes the new file. A kill leaves it, as `.NAME.new`; the next call writes over it.

    Args:
        path: The destination; its directory must exist.
        is_shared: Whether other threads or processes may write the same destination at the same time; each
            new file then has a name of its own, and `remove_abandoned` removes those that kills leave.
    """
    token = f".{secrets.token_hex(8)}" if is_shared else ""
    aside = path.with_name(f".{path.name}{token}.new")
    try:
        yield aside
        fsync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_bytes(path: Path, content: bytes, *, is_shared: bool = False) -> None:
    """Replace a file's content at once; see `replace_file`."""
    with replace_file(path, is_shared=is_shared) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str, *, is_shared: bool = False) -> None:
    """Replace a file's content, in UTF-8, at once; see `replace_file`."""
    write_bytes(path, text.encode(), is_shared=is_shared)


def remove_abandoned(path: Path) -> None:
    """Remove the new files that killed processes left beside a shared destination a day ago or earlier."""
    for aside in path.parent.glob(f".{path.name}.*.new"):
        with suppress(FileNotFoundError):
            if time.time() - aside.stat().st_mtime > ABANDONED_SECONDS:
                aside.unlink()


@contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """Yield a new directory to write in, and put it in the place of `directory` once all is on disk.

    An exception removes the new directory.

    Raises:
        ModelError: When `directory` is a file.
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
