"""The demo's parts keep what BaseReward promises of every part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from basereward.errors import ConfigError, DataError
from basereward.testing import Check, conformance

try:
    from basereward_mini import assets, human_ratings

    for asset in (assets.SMOLLM2, assets.OPENMOJI, assets.EFFICIENTNET):
        asset.find()
except (ConfigError, ImportError) as error:
    pytest.skip(f"the demo's packages are not installed: {error}", allow_module_level=True)


def ratings(directory: Path) -> Mapping[str, Any]:
    """Return the options of the ratings, of which few are read."""
    try:
        return {"path": str(human_ratings.find()), "num_texts": 80}
    except DataError as error:
        pytest.skip(str(error))


@conformance(
    "mini",
    options={
        "backbone/mini-vlm": {"num_layers": 1},
        "dataset/openmoji-captions": {"split": "validation", "num_responses": 2},
        "dataset/human-ratings": ratings,
    },
)
def test_conformance(check: Check) -> None:
    check()
