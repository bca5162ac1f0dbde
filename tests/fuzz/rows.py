"""Rows of files: JSONL, JSON lists, either gzipped, Parquet and Arrow, read as comparisons."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

from basereward.data.formats import DetectedDataset
from basereward.errors import BaseRewardError

ROWS = [
    {
        "id": "a",
        "prompt": [{"role": "user", "content": "<image>which?"}],
        "images": ["cat.png"],
        "responses": ["good", "bad"],
        "ratings": [2.5, 1],
        "weight": 2,
        "meta": {"x": [1]},
    },
    {
        "prompt": "which?",
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": "bad",
        "margin": 1.5,
    },
    {"prompt": "q", "responses": ["a", "b"], "ranks": [0, 1], "videos": ["v"], "source": "s"},
]


def table() -> bytes:
    """Return the last row as Parquet."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[2:]), buffer)
    return buffer.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SEEDS = [LINES, json.dumps(ROWS).encode(), gzip.compress(LINES), gzip.compress(b"[" + LINES), table()]
TOKENS = [
    b"9" * 401,
    b"1e400",
    b"NaN",
    b"null",
    b"\\ud83d",
    b"[" * 3000,
    b'{"a":',
    b"\xef\xbb\xbf",
    b'"ranks": [0, 1]',
    b"<image>",
]
DIRECTORY = Path(tempfile.mkdtemp(prefix="basereward-fuzz-"))


def check(data: bytes) -> None:
    """Read a file of these bytes: rows become comparisons or errors, and nothing else happens."""
    path = DIRECTORY / "rows"
    path.write_bytes(data)
    try:
        for item in DetectedDataset(path).read():
            str(item)
    except BaseRewardError:
        pass
