"""Rejected rows: listed in `rejected.jsonl` with file, line, field and reason, or raised as errors."""

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
    """The file `rejected.jsonl` of a run: each row once, however often it is rejected.

    Args:
        path: The file; its content up to `offset` is kept. None on ranks that don't write it.
        fail: Whether a rejected row ends the training instead.
        offset: Length in bytes at the checkpoint; lines that a killed run wrote later are cut off.
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
            error: The reason, with file and line.
            split: `train` or `eval`.
            id: The comparison's id; empty if the row could not be read as a comparison.

        Raises:
            DataError: The same error, if a rejected row ends the training.
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
        """Sync the file to disk, and return its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _digest(line: bytes) -> bytes:
    # Digests take less memory than lines: streamed data may have millions of bad rows.
    return hashlib.blake2b(line, digest_size=16).digest()
