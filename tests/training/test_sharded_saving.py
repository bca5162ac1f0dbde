"""A sharded model's files: each process writes some of them, and they are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ranks import in_ranks
from sharded import save_sharded

from basereward import RewardModel
from basereward.backbones import transformers_model
from basereward.config import Component
from basereward.plugins import PluginManager
from basereward.training.seeding import seed_everything

pytestmark = pytest.mark.slow

HALF_A_LAYER = 20_000  # bytes


@pytest.mark.parametrize(
    ("kind", "max_bytes", "settings"),
    [
        ("llama", HALF_A_LAYER, {}),
        ("llama", 10**9, {"ema_decay": 0.9}),
        ("qwen2_5_vl", HALF_A_LAYER, {"freeze": ("vision",)}),
        ("internvl-qwen2", 2 * HALF_A_LAYER, {}),
    ],
)
def test_each_process_writes_some_of_the_files_that_one_writes(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    max_bytes: int,
    settings: dict[str, Any],
) -> None:
    seed_everything(0)
    whole = RewardModel.build(
        backbone=Component(tiny.backbone_of(kind), {"model": str(tiny_models[kind])}),
        plugins=PluginManager(),
    )
    monkeypatch.setattr(transformers_model, "MAX_FILE_BYTES", max_bytes)
    whole.save(tmp_path / "whole")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    weights = sorted(name for name in expected if name.startswith("model") and name.endswith(".safetensors"))
    written = in_ranks(save_sharded, tiny_models[kind], settings, tmp_path / "model", max_bytes)
    # In turn, a file each.
    assert written == [weights[0::2], weights[1::2]]
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


def test_experts_that_are_saved_one_by_one_are_written_by_the_main_process(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    written = in_ranks(save_sharded, tiny_models["qwen3_moe"], {}, tmp_path / "model", 10**9)
    assert written == [[], []]
    seed_everything(0)
    whole = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tiny_models["qwen3_moe"])}), plugins=PluginManager()
    )
    loaded = RewardModel.load(tmp_path / "model")
    for name, value in whole.paradigm.state_dict().items():
        assert torch.equal(loaded.paradigm.state_dict()[name], value), name
