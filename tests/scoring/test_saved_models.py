"""Directories that earlier versions of the code saved, kept as they were, load with the same rewards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rounding import TINY_REWARD

from basereward import Comparison, DataError, load_model

SAVED = Path(__file__).parents[1] / "fixtures" / "saved_models"
REWARDS = json.loads((SAVED / "rewards.json").read_text(encoding="utf-8"))
ROWS = [json.loads(line) for line in (SAVED / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_model_saved_before_loads_with_the_same_rewards(name: str) -> None:
    rows = [row for row in ROWS if row["id"] in REWARDS[name]]
    comparisons = [
        Comparison(row["prompt"], row["responses"], images=[SAVED / image for image in row["images"]])
        for row in rows
    ]
    for row, rewards in zip(rows, load_model(SAVED / name).score(comparisons), strict=True):
        assert not isinstance(rewards, DataError), rewards
        assert list(rewards) == pytest.approx(REWARDS[name][row["id"]], abs=TINY_REWARD)
