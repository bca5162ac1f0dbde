"""Files that somebody else may have written: their kind and size are looked at before they are read."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basereward.errors import BaseRewardError

MAX_JSON_BYTES = 64 * 2**20
"""Bytes that a file of settings may have; the index of a model of a thousand shards has one of them."""

MAX_LINE_BYTES = 64 * 2**20
"""Bytes that a line of JSONL may have; the file may have any number of lines."""


def is_regular(path: Path) -> bool:
    """Tell whether a path is a file itself: no directory, no link, nothing that might never end."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def understood(path: Path, error: type[BaseRewardError]) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read, and its values are used, into an error that names it.

    Args:
        path: The file.
        error: The type of the error.

    Raises:
        BaseRewardError: Of that type; where there is no file, its cause is a FileNotFoundError.
    """
    try:
        yield
    except (EOFError, zlib.error) as fault:
        raise error(f"{path} is damaged: its compressed content is cut short or altered") from fault
    except OSError as fault:
        raise error(f"{path} can't be read: {fault.strerror or fault}") from fault
    except KeyError as fault:
        raise error(f"{path} is damaged: it lacks {fault}") from fault
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as fault:
        raise error(f"{path} is damaged: {fault}") from fault


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, or the file that a link leads to, to read its bytes.

    Raises:
        OSError: When there is none, or it is no regular file.
    """
    # Opening a FIFO would wait for its writer, but for O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read_bytes(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a file, or of the file that a link leads to.

    Raises:
        OSError: When there is none, it is no regular file, or larger than `max_bytes`.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Read on, since a size may be a lie, as of files in /proc.
        content = file.read(max_bytes + 1) if size <= max_bytes else b""
    if size > max_bytes or len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than the {max_bytes:,} bytes allowed", str(path))
    return content


def read_text(path: Path, max_bytes: int = MAX_JSON_BYTES) -> str:
    """Return the content of a file in UTF-8.

    Raises:
        OSError: As `read_bytes`.
        ValueError: When it is not UTF-8.
    """
    return read_bytes(path, max_bytes).decode("utf-8")


def read_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield each line of a file, which ends with a newline alone, with its number, counted from 1.

    Args:
        path: The file, of any length.
        max_bytes: Bytes that a line may have.

    Raises:
        OSError: When there is none, it is no regular file, or a line is longer.
    """
    with opened(path) as file:
        number = 0
        while line := file.readline(max_bytes + 1):
            number += 1
            if len(line) > max_bytes:
                reason = f"line {number} has more than the {max_bytes:,} bytes allowed"
                raise OSError(errno.EFBIG, reason, str(path))
            yield number, line


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of a JSON file.

    Raises:
        OSError: As `read_bytes`.
        ValueError: When it is not JSON that can be read, or names a key twice.
    """
    return parse_json(read_text(path, max_bytes))


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
