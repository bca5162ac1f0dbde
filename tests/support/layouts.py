"""Files as benchmarks' downloads have them: JSONL, one JSON list, Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSONL, the directories on its way included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_list(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def values(benchmark: Any, rewards: list[Any]) -> dict[str, float]:
    """Return the values of a benchmark's report."""
    return {name: score.value for name, score in benchmark.report(rewards).items()}
