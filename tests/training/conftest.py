"""Fixtures of the training's tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from figures import blank_figures, drawn_figures
from rounding import SMOOTH_EPS

__all__ = ["blank_figures", "drawn_figures"]


@pytest.fixture(scope="session")
def text_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `train.jsonl` of 22 rows and `eval.jsonl` of 8."""
    import runs

    root = tmp_path_factory.mktemp("data")
    runs.write_rows(root / "train.jsonl", runs.rows(22, seed=1))
    runs.write_rows(root / "eval.jsonl", runs.rows(8, seed=2))
    return root


@pytest.fixture
def smooth_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep AdamW from making rounding errors larger, for trainings that add up in other orders."""
    smooth = partialmethod(torch.optim.AdamW.__init__, eps=SMOOTH_EPS)
    monkeypatch.setattr(torch.optim.AdamW, "__init__", smooth)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute in one thread: models this small gain nothing by two, and lose much beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
