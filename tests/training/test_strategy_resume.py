"""Whatever the strategy: killed and resumed is as if never killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import torch
from rounding import SMOOTH_EPS, adamw_bound, tiny_metric_bound, within
from safetensors.torch import load_file
from torch import Tensor

from basereward import RewardModel
from basereward.config import Component, LoraConfig, RunConfig

STRATEGIES: dict[str, dict[str, Any]] = {
    "adafactor": {"optimizer": "adafactor", "ema_decay": 0.8, "activation_checkpointing": True},
    # Rewards only spread, so the first of four evaluations stays the best, and the third is the last.
    "adamw-8bit": {"optimizer": "adamw-8bit", "best_by": "-reward_std", "patience": 2},
    "lora": {"lora": LoraConfig(dropout=0.2), "ema_decay": 0.8, "best_by": "log_loss", "lr": 1e-2},
}

pytestmark = pytest.mark.external

QUANTIZED = {"lora": LoraConfig(rank=4), "optimizer": "adamw-8bit", "activation_checkpointing": True}


def adapter(run: RunConfig) -> dict[str, bytes]:
    """Return the files of the adapters that a run saves alone."""
    directory = Path(run.output) / "adapter"
    return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.is_dir() else {}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_killed_midway_and_resumed_ends_with_the_same_bytes(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path, name: str
) -> None:
    ends_alike(tmp_path, tiny_models["llama"], text_data, STRATEGIES[name])
    evaluations = runs.records(tmp_path / "whole", "evaluation")
    assert len(evaluations) == (3 if "patience" in STRATEGIES[name] else 4)


def test_so_does_one_on_weights_of_4_bits(text_data: Path, tmp_path: Path) -> None:
    model = tiny.save_causal_lm(tmp_path / "model", hidden_size=64, intermediate_size=128)
    backbone = Component("causal-lm", {"model": str(model), "quantize": "4bit"})
    ends_alike(tmp_path, model, text_data, {"backbone": backbone, **QUANTIZED})
    # What is left behind is a plain model.
    RewardModel.load(tmp_path / "whole" / "last")
    checkpoint = max((tmp_path / "whole" / "checkpoint").iterdir())
    kept, given = ((place / "model.safetensors").stat().st_size for place in (checkpoint, model))
    assert kept < given / 4


def ends_alike(root: Path, model: Path, data: Path, strategy: dict[str, Any]) -> None:
    """Run something through, and again with a kill in the middle, and compare all that they leave."""

    def config(place: str) -> RunConfig:
        return runs.config(
            root / place,
            model,
            data / "train.jsonl",
            data / "eval.jsonl",
            head=Component("mlp", {"dropout": 0.2}),
            **{"epochs": 2, "eval_every": 3, "save_every": 2, **strategy},
        )

    whole, killed = config("whole"), config("killed")
    status, num_moments = runs.in_child(whole)
    assert status == 0
    assert runs.in_child(killed, kill_at=num_moments // 2)[0] == -signal.SIGKILL
    assert len(runs.records(Path(killed.output), "step")) < len(runs.records(Path(whole.output), "step"))
    assert runs.in_child(killed, resume=True)[0] == 0
    assert runs.remains(Path(killed.output)) == runs.remains(Path(whole.output))
    assert adapter(killed) == adapter(whole)
    assert bool(adapter(whole)) == ("lora" in strategy)


def test_two_processes_train_averaged_adapters_as_one_does(
    tiny_models: dict[str, Path], text_data: Path, tmp_path: Path
) -> None:
    strategy: dict[str, Any] = {"lora": LoraConfig(), "ema_decay": 0.8, "activation_checkpointing": True}

    def trained(num_ranks: int, kind: str) -> tuple[list[float], list[dict[str, Tensor]]]:
        paths = (text_data / "train.jsonl", text_data / "eval.jsonl")
        settings: dict[str, Any] = {"parallel": kind, "log_every": 1, **strategy}
        run = runs.config(tmp_path / f"{kind}-{num_ranks}", tiny_models["llama"], *paths, **settings)
        assert runs.in_child(run, num_ranks=num_ranks, adamw_eps=SMOOTH_EPS)[0] == 0
        losses = [record["loss"] for record in runs.records(Path(run.output), "step")]
        files = (Path(run.output) / place for place in ("last/model", "last/head", "adapter/adapter_model"))
        return losses, [load_file(path.with_suffix(".safetensors")) for path in files]

    # 22 rows in batches of 4, at rates of up to 1e-3.
    drift = adamw_bound(6, 1e-3)
    # Adapters are merged as alpha / rank times a sum of `rank` products of an A of less than 0.2 with a B.
    merged = LoraConfig().alpha * 0.2 * drift
    expected_losses, expected = trained(1, "ddp")
    assert len(expected_losses) == 6
    for kind in ("ddp", "fsdp"):
        losses, tensors = trained(2, kind)
        for step, (loss, wanted) in enumerate(zip(losses, expected_losses, strict=True)):
            assert loss == pytest.approx(wanted, abs=tiny_metric_bound(step, 1e-3))
        for together, alone, bound in zip(tensors, expected, (merged, drift, drift), strict=True):
            assert together.keys() == alone.keys()
            for name, value in alone.items():
                torch.testing.assert_close(together[name], value, **within(bound))
