"""The precision of a training: where it is recorded, and that a resumed run keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import runs

from basereward import ConfigError, train
from basereward.config.run import RunConfig, Stage
from basereward.hardware import precision
from basereward.hardware.processor import Bf16Support


def run(tmp_path: Path, tiny_models: dict[str, Path], text_data: Path, **settings: object) -> RunConfig:
    rows = [text_data / "train.jsonl", text_data / "eval.jsonl"]
    return runs.config(tmp_path / "run", tiny_models["llama"], *rows, log_every=1, save_every=2, **settings)


def hardware(monkeypatch: pytest.MonkeyPatch, *, is_fast: bool) -> None:
    """Make products in bf16 fast or slow, of models of any width."""
    monkeypatch.setattr(precision, "bf16_support", lambda device: Bf16Support(is_fast, "the processor's"))
    monkeypatch.setattr(precision, "MIN_WIDTH", 1)


@pytest.mark.parametrize("is_fast", [True, False])
def test_log_model_and_report_record_the_precision_and_its_reason(
    is_fast: bool,
    tmp_path: Path,
    tiny_models: dict[str, Path],
    text_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hardware(monkeypatch, is_fast=is_fast)
    result = train(run(tmp_path, tiny_models, text_data, max_steps=2), progress=False, plots=False)
    name = "bf16" if is_fast else "fp32"
    facts = {"device": "cpu", "precision": name, "reason": "auto: the processor's"}
    [start] = runs.records(result.run_dir, "start")
    assert start == {"kind": "start", "step": 0, **facts}
    record = json.loads((result.model_dir / "reward_config.json").read_text())["record"]["training"]
    assert {key: record[key] for key in facts} == facts
    report = json.loads((result.run_dir / "evaluation" / "report.json").read_text())
    assert (report["device"], report["precision"]) == ("cpu", name)


def test_a_resumed_training_keeps_the_precision_that_it_began_with(
    tmp_path: Path, tiny_models: dict[str, Path], text_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, is_fast=True)
    config = run(tmp_path, tiny_models, text_data, max_steps=4)
    whole = train(replace(config, output=str(tmp_path / "whole")), progress=False, plots=False)
    train(config, progress=False, plots=False)
    for path in sorted((tmp_path / "run" / "checkpoint").iterdir())[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    # As where a timed product turns out otherwise on the same machine.
    hardware(monkeypatch, is_fast=False)
    resumed = train(config, resume=True, progress=False, plots=False)
    expected, losses = (
        [record["loss"] for record in runs.records(directory, "step")]
        for directory in (whole.run_dir, resumed.run_dir)
    )
    assert losses == expected
    assert [record["precision"] for record in runs.records(resumed.run_dir, "start")] == ["bf16"]


def test_a_stage_has_no_device_of_its_own(
    tmp_path: Path, tiny_models: dict[str, Path], text_data: Path
) -> None:
    config = run(tmp_path, tiny_models, text_data)
    staged = replace(config, stages=(Stage(name="a"), Stage(name="b", train={"device": "cpu"})))
    with pytest.raises(ConfigError, match=r"train\.device: is of the whole run"):
        train(staged, progress=False, plots=False)


def test_a_device_that_is_not_there_is_an_error(
    tmp_path: Path, tiny_models: dict[str, Path], text_data: Path
) -> None:
    with pytest.raises(ConfigError, match="device cuda:9: "):
        train(run(tmp_path, tiny_models, text_data, device="cuda:9"), progress=False, plots=False)
