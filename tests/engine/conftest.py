"""Fixtures of the engine's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def text_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `train.jsonl` of 22 rows and `eval.jsonl` of 8."""
    import runs

    root = tmp_path_factory.mktemp("data")
    runs.write_rows(root / "train.jsonl", runs.rows(22, seed=1))
    runs.write_rows(root / "eval.jsonl", runs.rows(8, seed=2))
    return root
