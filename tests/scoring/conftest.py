"""A model that gives the rewards that a test has written down, and one that is served."""

from __future__ import annotations

import pytest
from server_fixtures import vision_engine, vision_model
from written_down import WrittenDown

__all__ = ["model", "vision_engine", "vision_model"]


@pytest.fixture
def model() -> WrittenDown:
    return WrittenDown()
