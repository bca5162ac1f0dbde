"""Rows prepared without weights: as the model with its weights prepares them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from basereward.config import Component, DataConfig, RunConfig, Source
from basereward.errors import DataError
from basereward.planning.preparation import is_here, model_without_weights, prepare_rows
from basereward.plugins import PluginManager
from basereward.scoring.reward_model import RewardModel
from basereward.training.resolve import resolve_run

KINDS = (*tiny.VL_KINDS, *tiny.INTERNVL_KINDS, *tiny.LM_KINDS)


def run_of(model: Path | str, kind: str = "qwen2_5_vl", **options: object) -> RunConfig:
    run = RunConfig(
        output="run",
        backbone=Component(tiny.backbone_of(kind), {"model": str(model), **options}),
        data=DataConfig(train=(Source("basereward", {"path": "rows.jsonl"}),)),
    )
    return resolve_run(run, PluginManager())


def model_of(tiny_models: dict[str, Path], **options: object) -> RewardModel:
    return model_without_weights(run_of(tiny_models["qwen2_5_vl"], **options), PluginManager())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_weights_prepares_what_the_model_prepares(
    tiny_models: dict[str, Path], kind: str
) -> None:
    run = run_of(tiny_models[kind], kind)
    model = model_without_weights(run, PluginManager())
    assert all(parameter.is_meta for parameter in model.backbone.parameters())
    whole = RewardModel.build(backbone=run.backbone)
    rows = tiny.comparisons(images=kind not in tiny.LM_KINDS)
    prepared = prepare_rows(model, rows, is_training=True)
    assert prepared.sizes == [whole.paradigm.prepare(row).size for row in rows]
    assert prepared.refused == []


@pytest.mark.parametrize("paradigm", ["critic", "generative"])
def test_models_that_write_are_made_without_weights(paradigm: str, tmp_path: Path) -> None:
    run = run_of(tiny.add_language_head(tiny.save_qwen_vl(tmp_path / "model")))
    run = resolve_run(replace(run, paradigm=Component(paradigm)), PluginManager())
    model = model_without_weights(run, PluginManager())
    whole = RewardModel.build(backbone=run.backbone, paradigm=run.paradigm)
    whole.paradigm.eval()
    rows = tiny.comparisons()
    prepared = prepare_rows(model, rows, is_training=False)
    assert prepared.sizes == [whole.paradigm.prepare(row).size for row in rows]
    shapes = {name: value.shape for name, value in model.paradigm.state_dict().items()}
    assert shapes == {name: value.shape for name, value in whole.paradigm.state_dict().items()}


def test_rows_that_are_refused_are_told_and_the_rest_is_measured(tiny_models: dict[str, Path]) -> None:
    rows = tiny.comparisons()
    lengths = [size.tokens for size in prepare_rows(model_of(tiny_models), rows, is_training=True).sizes]
    prepared = prepare_rows(model_of(tiny_models, max_tokens=80), rows, is_training=True)
    assert len(prepared.sizes) + len(prepared.refused) == len(rows)
    assert prepared.refused
    assert all(isinstance(error, DataError) for error in prepared.refused)
    kept = [size.tokens for size in prepared.sizes]
    assert set(kept) < set(lengths)
    mean = round(sum(kept) / len(kept))
    assert str(prepared).startswith(f"{min(kept)} to {max(kept)} tokens a row, {mean} on average")


def test_responses_that_would_be_cut_are_counted(tiny_models: dict[str, Path]) -> None:
    model = model_of(tiny_models, max_tokens=60, on_long="truncate")
    long = tiny.comparisons()[0].replace(responses=["cat " * 100, "dog"])
    prepared = prepare_rows(model, [long], is_training=True)
    assert prepared.num_truncated == 1
    assert str(prepared).endswith("; 1 responses cut")


def test_a_model_of_the_hub_that_was_not_downloaded_is_not_here(tiny_models: dict[str, Path]) -> None:
    assert is_here(run_of(tiny_models["qwen2_5_vl"]))
    assert not is_here(run_of("Qwen/Qwen2.5-VL-7B-Instruct"))
