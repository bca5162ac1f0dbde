"""A logger of training records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write(record: Mapping[str, Any], run_dir: Path) -> None:
    """Add a step's loss to `example.csv`; evaluations and checkpoints are records of other kinds."""
    if record["kind"] != "step":
        return
    path = run_dir / "example.csv"
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        if is_new:
            file.write("step,loss\n")
        file.write(f"{record['step']},{record['loss']}\n")
