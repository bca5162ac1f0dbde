"""The lines of run files that docs/training.md shows are settings that there are."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from basereward.config import TrainConfig, load_run
from basereward.config.toml import to_table
from basereward.plugins import PluginManager

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
OF_TRAIN = [item.name for item in dataclasses.fields(TrainConfig)]


def holds(settings: Any, said: Any) -> bool:
    """Tell whether settings are those said, and any others."""
    if isinstance(said, dict):
        return all(holds(settings.get(name), value) for name, value in said.items())
    if isinstance(said, list):
        return len(settings) == len(said) and all(map(holds, settings, said))
    return bool(settings == said)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("=")[0].strip())
def test_a_run_file_may_say_so(block: str, tmp_path: Path) -> None:
    said: dict[str, Any] = tomllib.loads(block)
    bare = any(name in OF_TRAIN for name in said)  # lines of [train] without their table
    path = tmp_path / "run.toml"
    if "base" in said:
        (tmp_path / said["base"]).touch()
    path.write_text(
        ("" if "output" in said else 'output = "o"\n')
        + ("" if "backbone" in said else 'backbone = { name = "causal-lm", model = "m" }\n')
        + 'data = { train = [{ name = "trl", path = "t" }], eval = [{ name = "trl", path = "e" }] }\n'
        + ("[train]\n" if bare else "")
        + block
    )
    run = load_run(path)
    for kind in ("backbone", "loss"):
        PluginManager().resolve(kind, getattr(run, kind))
    settings = to_table(run)
    assert holds(settings["train"] if bare else settings, {**said, "base": None})


def test_every_strategy_is_described() -> None:
    settings = {
        *("freeze", "lr_parts", "weight_decay", "warmup_fraction", "schedule", "clip_norm", "precision"),
        *("optimizer", "[train.lora]", "activation_checkpointing", "ema_decay", "best_by", "patience"),
        *("init", "[[stages]]", "quantize", "zero_coefficient", "length_normalize"),
    }
    assert not [name for name in settings if name not in TEXT]
