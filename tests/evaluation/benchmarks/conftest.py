"""Benchmarks in their official layouts, made here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from basereward.config import Component
from basereward.plugins import PluginManager

Build = Callable[..., Any]


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function that makes a benchmark by its registered name, as the command line does."""
    plugins = PluginManager()

    def make(name: str, path: Path, **options: Any) -> Any:
        return plugins.build("benchmark", Component(name, {"path": str(path), **options}))

    return make


@pytest.fixture(scope="session")
def png() -> bytes:
    """Return an encoded image."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()
