"""A model that gives the rewards that a test has written down."""

from __future__ import annotations

import pytest
from written_down import WrittenDown


@pytest.fixture
def model() -> WrittenDown:
    return WrittenDown()
