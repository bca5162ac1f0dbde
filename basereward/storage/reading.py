"""Files that somebody else may have written: their kind and size are looked at before they are read."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 2**20
"""Bytes that a file of settings may have; the index of a model of a thousand shards has one of them."""


def is_regular(path: Path) -> bool:
    """Tell whether a path is a file itself: no directory, no link, nothing that might never end."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a file, or of the file that a link leads to.

    Raises:
        OSError: When there is none, it is no regular file, or larger than `max_bytes`.
    """
    # Opening a FIFO would wait for its writer, but for O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        # Read on, since a size may be a lie, as of files in /proc.
        content = file.read(max_bytes + 1) if status.st_size <= max_bytes else b""
    if status.st_size > max_bytes or len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than the {max_bytes:,} bytes allowed", str(path))
    return content


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of a JSON file.

    Raises:
        OSError: As `read_bytes`.
        ValueError: When it is not JSON that can be read, or names a key twice.
    """
    return parse_json(read_bytes(path, max_bytes).decode("utf-8"))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: When it is not JSON, is nested too deeply, or an object names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, for `object_pairs_hook`.

    Raises:
        ValueError: When it names a key twice, so that readers would differ in what it says.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has the key {twice[:60]!r} twice")
    return row
