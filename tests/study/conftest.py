"""A small study in files, and results made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

STUDY = """
title = "Tiny"
output = "{output}"
seeds = [0, 1]
baseline = {{ layers = "1" }}

[run]
plugins = ["troubled"]
backbone = "tiny"

[[run.data.train]]
name = "troubled"
trouble = "{trouble}"

[[run.data.eval]]
name = "troubled"

[run.train]
epochs = 2
batch_size = 8
lr = 1e-2

[axes.layers]
1.head.num_layers = 1
2.head.num_layers = 2
"""


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """Return a function that writes a study of two cells and two seeds, whose data may be told to fail."""

    def write(directory: Path, more: str = "", name: str = "study") -> Path:
        path = directory / f"{name}.toml"
        text = STUDY.format(output=directory / name, trouble=directory / "trouble")
        path.write_text(text + more, encoding="utf-8")
        return path

    return write
