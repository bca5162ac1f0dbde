"""Fixtures that all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def one_thread_without_bars() -> None:
    """Compute on one thread, a second one costing tiny models more than it brings; draw no bars."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return directories of tiny random models by model type."""
    import tiny_vlm

    root = tmp_path_factory.mktemp("models")
    return {kind: tiny_vlm.save(root / kind, kind) for kind in tiny_vlm.MAKERS}
