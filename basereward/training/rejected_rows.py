"""Rows that a training could not use: listed with file, line, field and reason, or raised."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import IO

from basereward.data.writing import rejected_record
from basereward.errors import DataError


class RejectedRows:
    """The file `rejected.jsonl` of a run: each row once, however often it is met.

    Args:
        path: The file; what it holds up to `offset` is kept. None where another process writes it.
        fail: Whether a rejected row ends the training instead.
        offset: Bytes of it that belong to the run so far; what a killed run wrote after them is cut off.
    """

    def __init__(self, path: Path | None, *, fail: bool, offset: int = 0) -> None:
        self.path = path
        self.fail = fail
        self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._file.truncate(min(offset, os.fstat(self._file.fileno()).st_size))
        self._file.seek(0)
        self._seen = {_digest(line) for line in self._file if line.strip()}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, error: DataError, *, split: str, id: str = "") -> None:
        """List a row, unless it is listed already.

        Args:
            error: Why it was rejected, and where it stands.
            split: `train` or `eval`.
            id: Of the comparison, where it got as far as having one.

        Raises:
            DataError: The same error, where a bad row ends the training.
        """
        if self.fail:
            raise error
        record = {"split": split, **rejected_record(error, id=id)}
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        digest = _digest(line)
        if digest not in self._seen:
            self._seen.add(digest)
            self._file.write(line)
            self._file.flush()

    def sync(self) -> int:
        """Put the file on disk, and return its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _digest(line: bytes) -> bytes:
    # Instead of the line itself, which is many times as long: streamed data may have millions of bad rows.
    return hashlib.blake2b(line, digest_size=16).digest()
