"""Figures that are saved without being drawn, for tests of the commands and trainings around them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow


@pytest.fixture
def drawn_figures() -> None:
    """Have figures drawn, for a test that is of them, too."""


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save each figure as one pixel: drawing takes longer than training or evaluating a tiny model."""
    if "drawn_figures" in request.fixturenames:
        return
    from matplotlib.figure import Figure

    def save_blank(figure: Figure, path: Path, *, format: str = "png", **options: object) -> None:
        Pillow.new("RGB", (1, 1)).save(path, format)

    monkeypatch.setattr(Figure, "savefig", save_blank)
