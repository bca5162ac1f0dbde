"""Scoring in bf16: what it computes, and where its precision is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from written_down import WrittenDown

from basereward import Comparison, RewardModel, load_model
from basereward.config import Component
from basereward.errors import ConfigError
from basereward.hardware import precision
from basereward.hardware.processor import Bf16Support
from basereward.plugins import PluginManager
from basereward.scoring.ensemble import Ensemble
from basereward.scoring.files import score_file
from basereward.scoring.shards import score_shards, shards_of

ROWS = [Comparison(f"what is {number}?", ["a cat", "two dogs", "x"]) for number in range(3)]


@pytest.fixture(scope="module")
def saved(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a model with fp32 weights."""
    return save(tiny_models["llama"], tmp_path_factory.mktemp("models") / "model")


def save(source: Path, directory: Path, **options: Any) -> Path:
    torch.manual_seed(3)
    backbone = Component("causal-lm", {"model": str(source), **options})
    RewardModel.build(backbone=backbone, plugins=PluginManager()).save(directory)
    return directory


def test_rewards_in_bf16_are_those_of_a_backbone_under_autocast(saved: Path) -> None:
    exact, rounded = load_model(saved), load_model(saved, precision="bf16")
    assert exact.computed == {"device": "cpu", "precision": "fp32"}
    assert rounded.computed == {"device": "cpu", "precision": "bf16"}
    with torch.autocast("cpu", torch.bfloat16):
        expected = exact.score(ROWS)
    assert rounded.score(ROWS) == expected != exact.score(ROWS)
    assert load_model(saved, precision="fp32").score(ROWS) == exact.score(ROWS)


def test_members_that_share_a_backbone_compute_in_its_precision(saved: Path) -> None:
    ensemble = Ensemble.of({"a": saved, "b": saved}, precision="bf16")
    assert ensemble.computed["precision"] == "bf16"
    [first, *_] = ensemble.score(ROWS)
    [alone, *_] = load_model(saved, precision="bf16").score(ROWS)
    assert first.members["a"] == first.members["b"] == alone


@pytest.mark.parametrize("is_fast", [True, False])
def test_weights_saved_in_bf16_are_multiplied_as_the_hardware_does_it_fast(
    is_fast: bool, tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save(tiny_models["llama"], tmp_path / "model", dtype="bfloat16")
    monkeypatch.setattr(precision, "bf16_support", lambda device: Bf16Support(is_fast, "the processor's"))
    model = load_model(directory)
    assert isinstance(model, RewardModel)
    dtypes = {parameter.dtype for parameter in model.backbone.parameters()}
    assert dtypes == {torch.bfloat16 if is_fast else torch.float32}
    assert model.precision.name == ("bf16" if is_fast else "fp32")
    kept = load_model(directory, precision="bf16")
    assert kept.models[0].backbone.fingerprint() == model.backbone.fingerprint()
    assert {parameter.dtype for parameter in kept.models[0].backbone.parameters()} == {torch.bfloat16}


class Computed(WrittenDown):
    """Rewards that claim to be computed in a precision."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.computed = {"device": "cpu", "precision": precision}


def written(path: Path, num: int = 9) -> Path:
    rows = [{"prompt": "p", "responses": [f"{number}", "0"]} for number in range(num)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_s_lines_name_the_precision_and_are_not_continued_in_another(tmp_path: Path) -> None:
    source, target = written(tmp_path / "rows.jsonl", 40), tmp_path / "rewards.jsonl"
    score_file(Computed("bf16"), source, target, batch_size=1, progress=False)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert {line["precision"] for line in lines} == {"bf16"}
    with pytest.raises(ConfigError, match="was computed in bf16, not fp32; --precision bf16 goes on"):
        score_file(WrittenDown(), source, target, batch_size=1, resume=True, progress=False)
    score_file(WrittenDown(), source, target, batch_size=1, overwrite=True, progress=False)
    assert "precision" not in json.loads(target.read_text().splitlines()[0])
    with pytest.raises(ConfigError, match="was computed in fp32, not bf16"):
        score_file(Computed("bf16"), source, target, batch_size=1, resume=True, progress=False)


def test_a_table_of_another_precision_is_not_taken_for_this_one(tmp_path: Path) -> None:
    written(tmp_path / "rows.jsonl")
    shards = shards_of([tmp_path / "rows.jsonl"], tmp_path / "out")

    def score(model: WrittenDown) -> Any:
        return score_shards(model, shards, tmp_path / "out", model_digest="m", progress=False)

    assert score(Computed("bf16")).is_complete
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["device"], summary["precision"]) == ("cpu", "bf16")
    assert score(Computed("bf16")).skipped == shards
    with pytest.raises(ConfigError, match="was computed in bf16, not fp32"):
        score(Computed("fp32"))
