"""Training strategies: each does in a run what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import torch
from rounding import TINY_REWARD
from safetensors.torch import load_file
from torch import Tensor

from basereward import ConfigError, RewardModel, train
from basereward.config import Component, LoraConfig, RunConfig
from basereward.data import read_comparisons

PARTS = {"projector": "visual.merger.", "vision": "visual.", "language": "language_model.", "head": "head."}

STILL = (("vision", "head"), ("projector", "language"))


@pytest.fixture
def lm(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="module")
def start(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved model that reads images, for runs to start from."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("start") / "model"
    RewardModel.build(backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})).save(place)
    return place


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return rows with images."""
    root = tmp_path_factory.mktemp("images")
    rows = runs.rows(4, seed=1)
    for number, row in enumerate(rows):
        tiny.image(seed=number).save(root / f"{number}.png")
        row["images"] = [f"{number}.png"]
    return runs.write_rows(root / "train.jsonl", rows)


def weights(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of a model directory."""
    return load_file(directory / "model.safetensors") | load_file(directory / "head.safetensors")


def moved(start: Path, run: RunConfig) -> set[str]:
    """Train, and return the parts of which a tensor is another than at the start."""
    before, after = weights(start), weights(train(run, progress=False, plots=False).last_dir)
    assert before.keys() == after.keys()
    return {
        next(part for part, prefix in PARTS.items() if name.startswith(prefix))
        for name in before
        if not torch.equal(before[name], after[name])
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set(PARTS)),
        *(({"freeze": (part,)}, PARTS.keys() - {part}) for part in PARTS),
        *(({"lr_parts": dict.fromkeys(still, 0.0)}, PARTS.keys() - set(still)) for still in STILL),
        ({"lora": LoraConfig()}, {"language", "head"}),
        ({"lora": LoraConfig(parts=("vision",), whole_parts=("projector",))}, PARTS.keys() - {"language"}),
        ({"lora": LoraConfig(), "freeze": ("head",)}, {"language"}),
    ],
    # A set's text differs by process, and processes that share the tests tell them by their ids.
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_what_is_not_trained_stays_byte_for_byte_and_the_rest_moves(
    start: Path, images: Path, tmp_path: Path, settings: dict[str, Any], expected: set[str]
) -> None:
    run = runs.config(
        tmp_path / "run",
        start,
        images,
        init=str(start),
        backbone=Component("qwen-vl"),
        max_steps=2,
        **{"weight_decay": 0.1, **settings},
    )
    assert moved(start, run) == expected
    rates = runs.records(tmp_path / "run", "step")[-1]["lr"]
    assert {part for part, rate in rates.items() if rate > 0} == expected


def run_of(root: Path, model: Path, data: Path, name: str = "run", **settings: Any) -> RunConfig:
    return runs.config(root / name, model, data / "train.jsonl", data / "eval.jsonl", **settings)


def test_the_average_is_evaluated_and_saved_and_the_weights_train_on(
    lm: Path, text_data: Path, tmp_path: Path
) -> None:
    """With the weights w1 and w2 of two steps, and w0 before them, the average is known."""
    settings: dict[str, Any] = {"eval_every": 1, "schedule": "constant", "warmup_fraction": 0.0}
    trajectory = []
    for step in (1, 2):
        run = run_of(tmp_path, lm, text_data, f"plain-{step}", max_steps=step, **settings)
        trajectory.append(weights(train(run, progress=False, plots=False).last_dir))
    first = run_of(tmp_path, lm, text_data, "frozen", max_steps=1, lr=0.0)
    average = weights(train(first, progress=False, plots=False).last_dir)
    for step, values in enumerate(trajectory, start=1):
        kept = min(0.2, (1 + step) / (10 + step))  # 2/11, then a fifth
        average = {name: kept * average[name] + (1 - kept) * values[name] for name in average}
    run = run_of(tmp_path, lm, text_data, "averaged", max_steps=2, ema_decay=0.2, **settings)
    result = train(run, progress=False, plots=False)
    found = weights(result.last_dir)
    for name, value in average.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    # The steps are those of the run without averages; the evaluations are of the averages.
    plain = runs.records(tmp_path / "plain-2")
    averaged = runs.records(tmp_path / "averaged")
    kinds = {
        kind: [(a, b) for a, b in zip(plain, averaged, strict=True) if a["kind"] == kind]
        for kind in ("step", "evaluation")
    }
    assert all(a == b for a, b in kinds["step"])
    assert all(a["log_loss"] != b["log_loss"] for a, b in kinds["evaluation"])
    last = runs.records(tmp_path / "averaged", "evaluation")[-1]
    scored = RewardModel.load(result.last_dir).score(read_comparisons(text_data / "eval.jsonl"))
    flat = [reward for rewards in scored for reward in rewards]
    assert last["reward_mean"] == pytest.approx(sum(flat) / len(flat), abs=TINY_REWARD)


def test_recomputing_activations_changes_no_byte(lm: Path, text_data: Path, tmp_path: Path) -> None:
    found = []
    for name, recomputes in (("kept", False), ("recomputed", True)):
        head = Component("mlp", {"dropout": 0.3})
        run = run_of(
            tmp_path, lm, text_data, name, head=head, max_steps=3, activation_checkpointing=recomputes
        )
        train(run, progress=False, plots=False)
        found.append(runs.remains(tmp_path / name))
    assert found[0] == found[1]


def test_adapters_learn_and_are_left_alone_and_merged(lm: Path, text_data: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, lm, text_data, epochs=4, lr=1e-2, lora=LoraConfig(rank=4))
    result = train(run, progress=False, plots=False)
    steps = runs.records(result.run_dir, "step")
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    config = json.loads((result.run_dir / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(lm)
    # The model that is left scores as it did in training, and has the names of one that knows no adapters.
    report = json.loads((result.run_dir / "evaluation" / "report.json").read_text())
    loaded = RewardModel.load(result.model_dir)
    scored = loaded.score(read_comparisons(text_data / "eval.jsonl"))
    margins = [better - worse for better, worse in scored]
    assert sum(margins) / len(margins) == pytest.approx(report["margin"]["mean"], abs=TINY_REWARD)
    assert weights(result.model_dir).keys() == weights(_bare(lm, tmp_path)).keys()
    checkpoint = max((result.run_dir / "checkpoint").iterdir())
    kept = load_file(checkpoint / "model.safetensors")
    assert all("lora_" in name or name.startswith("head.") for name in kept)


def _bare(lm: Path, root: Path) -> Path:
    RewardModel.build(backbone=Component("causal-lm", {"model": str(lm)})).save(root / "bare")
    return root / "bare"


def test_saving_along_the_way_changes_nothing_of_a_training_with_adapters(
    lm: Path, text_data: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 4, "lora": LoraConfig(dropout=0.1)}
    often = run_of(tmp_path, lm, text_data, "often", eval_every=1, **settings)
    once = run_of(tmp_path, lm, text_data, "once", **settings)
    found = [weights(train(run, progress=False, plots=False).last_dir) for run in (often, once)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_run_ends_when_nothing_gets_better(lm: Path, text_data: Path, tmp_path: Path) -> None:
    # At a rate of zero every evaluation equals the first, which stays the best.
    run = run_of(tmp_path, lm, text_data, epochs=5, eval_every=2, lr=0.0, patience=3)
    result = train(run, progress=False, plots=False)
    evaluations = runs.records(result.run_dir, "evaluation")
    # After step 2 the best, after steps 4, 6 and 8 no better; 22 rows in batches of 4 would be 30 steps.
    assert [record["step"] for record in evaluations] == [2, 4, 6, 8]
    assert (result.num_steps, result.best["step"]) == (8, 2)
    assert max((result.run_dir / "checkpoint").iterdir()).name == "step-00000008"
    before = runs.remains(result.run_dir)
    assert train(run, resume=True, progress=False, plots=False).num_steps == 8
    assert runs.remains(result.run_dir) == before


@pytest.mark.parametrize(
    ("best_by", "choose"), [("log_loss", min), ("reward_std", max), ("-reward_std", min)]
)
def test_the_best_model_is_best_by_the_metric_that_is_asked_for(
    lm: Path, text_data: Path, tmp_path: Path, best_by: str, choose: Any
) -> None:
    run = run_of(tmp_path, lm, text_data, epochs=2, eval_every=2, best_by=best_by, lr=5e-3)
    result = train(run, progress=False, plots=False)
    evaluations = runs.records(result.run_dir, "evaluation")
    metric = best_by.removeprefix("-")
    assert result.best["step"] == choose(evaluations, key=lambda record: record[metric])["step"]
    record = json.loads((result.model_dir / "reward_config.json").read_text())["record"]
    assert record["training"]["step"] == result.best["step"]


def test_a_metric_that_there_is_not_is_named_before_anything_is_read(lm: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, lm, tmp_path / "missing", best_by="acuracy")
    with pytest.raises(
        ConfigError, match=r"^train.best_by: there is no metric 'acuracy'; did you mean 'accu"
    ):
        train(run, progress=False, plots=False)


def test_a_run_starts_from_a_saved_model(lm: Path, text_data: Path, tmp_path: Path) -> None:
    first = train(run_of(tmp_path, lm, text_data, "first", max_steps=2), progress=False, plots=False)
    held_out = list(read_comparisons(text_data / "eval.jsonl"))
    again = run_of(tmp_path, lm, text_data, "second", max_steps=1, lr=0.0, init=str(first.last_dir), seed=9)
    second = train(again, progress=False, plots=False)
    expected = RewardModel.load(first.last_dir).score(held_out)
    assert RewardModel.load(second.last_dir).score(held_out) == expected
    record = json.loads((second.last_dir / "reward_config.json").read_text())["record"]
    assert (record["base_model"], record["started_from"]) == (str(lm), str(first.last_dir))
