"""Training: what a run directory holds, bad rows, exact accumulation, parts, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from plain_ops import use_plain_ops
from rounding import TINY_REWARD, tiny_metric_bound

from basereward import Comparison, ConfigError, DataError, RewardModel, hookimpl, ops, train
from basereward.backbones.causal_lm import CausalLM
from basereward.config import Component, DataConfig, RunConfig, Source, load_run
from basereward.data import read_comparisons
from basereward.forest import Tree
from basereward.plugins import PluginManager, PluginWarning
from basereward.training.nonfinite import NonFiniteError


@pytest.fixture
def lm(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="module")
def trained(tiny_models: dict[str, Path], text_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the result of a run with held-out data."""
    run = runs.config(
        tmp_path_factory.mktemp("runs") / "run",
        tiny_models["llama"],
        text_data / "train.jsonl",
        text_data / "eval.jsonl",
        epochs=3,
        eval_every=6,
        lr=3e-3,
    )
    return train(run, progress=False)


def test_a_training_learns_what_its_data_teach(trained: Any) -> None:
    steps = runs.records(trained.run_dir, "step")
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert trained.best["accuracy"] >= 0.875  # 7 of 8 pairs
    # 22 rows in batches of 4 are 6 steps an epoch.
    assert (trained.num_steps, steps[-1]["step"], steps[-1]["epoch"]) == (18, 18, 3.0)


def test_the_best_model_is_kept_and_scores_as_it_did_in_training(trained: Any, text_data: Path) -> None:
    evaluations = runs.records(trained.run_dir, "evaluation")
    assert [record["step"] for record in evaluations] == [6, 12, 18]
    best = max(evaluations, key=lambda record: (record["accuracy"], -record["log_loss"]))
    assert trained.best["step"] == best["step"]
    report = json.loads((trained.run_dir / "evaluation" / "report.json").read_text())
    assert report["accuracy"] == best["accuracy"]
    assert report["margin"]["mean"] == pytest.approx(best["margin"], abs=TINY_REWARD)
    [first, *_] = RewardModel.load(trained.model_dir).score(read_comparisons(text_data / "eval.jsonl"))
    assert first[0] > first[1]


def test_a_run_directory_says_everything(trained: Any) -> None:
    names = {path.name for path in trained.run_dir.iterdir()}
    files = {".basereward-run", "run.toml", "log.jsonl", "rejected.jsonl", "best-rewards.jsonl"}
    assert names == files | {"model", "last", "checkpoint", "plots", "evaluation", "tensorboard"}
    assert (trained.run_dir / "plots" / "training.png").stat().st_size > 10_000
    assert load_run(trained.run_dir / "run.toml").head.options["activation"] == "silu"
    record = json.loads((trained.last_dir / "reward_config.json").read_text())["record"]
    assert record["training"]["step"] == 18
    evaluation = runs.records(trained.run_dir, "evaluation")[-1]
    assert record["evaluation"] == {key: evaluation[key] for key in record["evaluation"]}


def test_rows_that_cannot_be_used_are_listed_and_the_rest_is_trained_on(lm: Path, tmp_path: Path) -> None:
    rows = runs.rows(5, seed=1)
    bad = [
        {"prompt": "one", "responses": ["a"], "ranks": [0]},
        {"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]},
        {"prompt": "unranked", "responses": ["a", "b"]},
        {"prompt": "empty", "responses": ["a", ""], "ranks": [0, 1]},
        {"prompt": "long " * 200, "responses": ["a", "b"], "ranks": [0, 1]},
    ]
    path = runs.write_rows(tmp_path / "train.jsonl", rows + bad)
    backbone = Component("causal-lm", {"model": str(lm), "max_tokens": 100})
    result = train(
        runs.config(tmp_path / "run", lm, path, backbone=backbone, epochs=2), progress=False, plots=False
    )
    listed = [json.loads(line) for line in (result.run_dir / "rejected.jsonl").read_text().splitlines()]
    assert result.num_rejected == 5
    assert [(row["split"], row["file"], row["line"], row["field"], row["reason"]) for row in listed] == [
        ("train", str(path), 9, "responses[1]", "is empty"),
        ("train", str(path), 6, "responses", "one response alone teaches this loss nothing; two are needed"),
        ("train", str(path), 7, "ranks", "all responses are tied, which teaches this loss nothing"),
        ("train", str(path), 8, "ranks", "has no ranks or ratings, so nothing can be learnt from it"),
        (
            "train",
            str(path),
            10,
            "responses[0]",
            "prompt and response are 850 + 2 tokens; max_tokens is 100 (the prompt leaves no room)",
        ),
    ]
    # 5 rows and the long one, which only its encoding finds, in two epochs of 2 batches.
    assert sum(record["num_pairs"] for record in runs.records(result.run_dir, "step")) == 10


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "x", "responses": ["a", ""], "ranks": [0, 1]}, "responses[1]: is empty"),
        (
            {"prompt": "x", "responses": ["a", "b"], "ranks": [0, 0]},
            "ranks: all responses are tied, which teaches this loss nothing",
        ),
    ],
)
def test_a_bad_row_ends_the_training_where_that_is_asked_for(
    lm: Path, tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    path = runs.write_rows(tmp_path / "train.jsonl", [*runs.rows(3, seed=1), row])
    data = DataConfig(train=(Source("basereward", {"path": str(path)}),), on_bad_row="fail")
    with pytest.raises(DataError) as caught:
        train(runs.config(tmp_path / "run", lm, path, data=data), progress=False, plots=False)
    assert str(caught.value) == f"{path}:4: {reason}"


def test_a_row_that_cannot_be_encoded_ends_the_training_where_that_is_asked_for(
    lm: Path, tmp_path: Path
) -> None:
    long = {"prompt": "x", "responses": ["cat " * 300, "b"], "ranks": [0, 1]}
    path = runs.write_rows(tmp_path / "train.jsonl", [*runs.rows(3, seed=1), long])
    data = DataConfig(train=(Source("basereward", {"path": str(path)}),), on_bad_row="fail")
    backbone = Component("causal-lm", {"model": str(lm), "max_tokens": 100})
    with pytest.raises(DataError) as caught:
        train(
            runs.config(tmp_path / "run", lm, path, data=data, backbone=backbone), progress=False, plots=False
        )
    assert str(caught.value).startswith(f"{path}:4: responses[0]: prompt and response are ")


def with_any_share_of_bad_rows(run: RunConfig) -> RunConfig:
    return replace(run, data=replace(run.data, max_bad_share=1.0))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_data_without_one_usable_row_is_an_error(lm: Path, tmp_path: Path, split: str) -> None:
    good = runs.write_rows(tmp_path / "good.jsonl", runs.rows(3, seed=1))
    row = {"prompt": "x", "responses": ["a", ""], "ranks": [0, 1]}
    path = runs.write_rows(tmp_path / "bad.jsonl", [row, row])
    paths = (path, good) if split == "train" else (good, path)
    with pytest.raises(DataError) as caught:
        train(
            with_any_share_of_bad_rows(runs.config(tmp_path / "run", lm, *paths)), progress=False, plots=False
        )
    expected = (
        f"data.{split} has no row that can be used; 2 rejected, the first: {path}:1: responses[1]: is empty"
    )
    assert str(caught.value) == expected


def test_a_training_whose_rows_all_fail_to_encode_is_an_error(lm: Path, tmp_path: Path) -> None:
    path = runs.write_rows(tmp_path / "train.jsonl", runs.rows(3, seed=1))
    backbone = Component("causal-lm", {"model": str(lm), "max_tokens": 4})
    with pytest.raises(DataError) as caught:
        train(runs.config(tmp_path / "run", lm, path, backbone=backbone), progress=False, plots=False)
    assert str(caught.value).startswith("data.train has no row that can be used; 3 rejected, the first: ")


def test_a_directory_in_use_is_not_written_in(lm: Path, tmp_path: Path) -> None:
    path = runs.write_rows(tmp_path / "train.jsonl", runs.rows(2, seed=1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    run = runs.config(tmp_path / "run", lm, path)
    with pytest.raises(ConfigError) as caught:
        train(run, progress=False, plots=False)
    assert str(caught.value) == (
        f"output: {tmp_path / 'run'} is not empty; resume the run there with --resume, replace it with "
        "--overwrite, or set another output"
    )
    train(run, overwrite=True, progress=False, plots=False)
    train(run, overwrite=True, progress=False, plots=False)
    assert (tmp_path / "run" / "thesis.tex").exists()
    assert len(runs.records(tmp_path / "run", "step")) == 1


def test_a_training_that_failed_before_its_first_step_does_not_keep_the_next_one_out(
    lm: Path, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("{}\n")
    run = with_any_share_of_bad_rows(runs.config(tmp_path / "run", lm, path))
    with pytest.raises(DataError, match="has no row that can be used"):
        train(run, progress=False, plots=False)
    runs.write_rows(path, runs.rows(2, seed=1))
    assert train(run, progress=False, plots=False).num_rejected == 0


def test_without_held_out_data_the_model_is_the_last_one(lm: Path, text_data: Path, tmp_path: Path) -> None:
    result = train(
        runs.config(tmp_path / "run", lm, text_data / "train.jsonl", max_steps=2), progress=False, plots=False
    )
    assert (result.best, result.num_steps) == ({}, 2)
    for name in ("model.safetensors", "head.safetensors"):
        assert (result.model_dir / name).read_bytes() == (result.last_dir / name).read_bytes()


@pytest.mark.parametrize("loss", ["bradley-terry", "plackett-luce", "hinge"])
def test_how_a_batch_is_split_up_changes_nothing(
    lm: Path, tmp_path: Path, loss: str, smooth_adamw: None
) -> None:
    # Comparisons of 1, 3 and 6 pairs: a mean of means over their forward passes would be another loss.
    rows = [row for num in (2, 3, 4) for row in runs.rows(2, seed=num, num_responses=num)]
    path = runs.write_rows(tmp_path / "train.jsonl", rows)
    logs = []
    for size in (6, 4, 1):
        settings = {
            "batch_size": 6,
            "micro_batch_size": size,
            "log_every": 1,
            "epochs": 3,
            "precision": "fp32",
            "lr": 1e-4,
        }
        run = runs.config(tmp_path / f"run-{size}", lm, path, loss=Component(loss), **settings)
        train(run, progress=False, plots=False)
        logs.append(runs.records(tmp_path / f"run-{size}", "step"))
    for log in logs[1:]:
        for whole, split in zip(logs[0], log, strict=True):
            bound = tiny_metric_bound(whole["step"] - 1, 1e-4)
            for name in ("loss", "accuracy", "margin", "grad_norm", "reward_min", "reward_max"):
                assert split[name] == pytest.approx(whole[name], rel=bound, abs=bound), name


@pytest.mark.skipif(ops.status()["cpu"]["kernels"] != "cpp", reason=ops.status()["cpu"]["reason"])
@pytest.mark.parametrize("head", [Component("linear"), Component("mlp", {"activation": "tanh"})])
def test_native_ops_and_plain_ones_take_the_same_course(
    lm: Path,
    text_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    head: Component,
    smooth_adamw: None,
) -> None:
    logs = []
    for name in ("native", "plain"):
        if name == "plain":
            use_plain_ops(monkeypatch)
        settings = {"epochs": 2, "log_every": 1, "precision": "fp32", "lr": 1e-4, "head": head}
        train(
            runs.config(tmp_path / name, lm, text_data / "train.jsonl", **settings),
            progress=False,
            plots=False,
        )
        logs.append(runs.records(tmp_path / name, "step"))
    assert len(logs[0]) == 12
    for native, plain in zip(*logs, strict=True):
        bound = tiny_metric_bound(plain["step"] - 1, 1e-4)
        assert native["loss"] == pytest.approx(plain["loss"], abs=bound)
        assert native["margin"] == pytest.approx(plain["margin"], abs=bound)


def test_frozen_parts_stay_as_they_are(lm: Path, text_data: Path, tmp_path: Path) -> None:
    run = runs.config(tmp_path / "run", lm, text_data / "train.jsonl", freeze=("language",), max_steps=2)
    result = train(run, progress=False, plots=False)
    before = RewardModel.build(backbone=run.backbone).backbone.state_dict()
    after = RewardModel.load(result.model_dir).backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert runs.records(result.run_dir, "step")[0]["lr"].keys() == {"head"}
    [checkpoint] = (result.run_dir / "checkpoint").iterdir()
    assert (checkpoint / "model.safetensors").stat().st_size < 20_000  # the head alone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": ("vison",)},
            "train.freeze: the model has no part 'vison'; parts: language, head",
        ),
        (
            {"lr_parts": {"languag": 1e-3}},
            "train.lr_parts: the model has no part 'languag'; did you mean 'language'? parts: language, head",
        ),
        (
            {"freeze": ("language", "head")},
            "train.freeze leaves nothing to train; parts: language, head",
        ),
    ],
)
def test_parts_that_the_model_lacks_are_named(
    lm: Path, text_data: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(
            runs.config(tmp_path / "run", lm, text_data / "train.jsonl", **settings),
            progress=False,
            plots=False,
        )
    assert str(caught.value) == message


def test_a_loss_that_is_not_finite_ends_the_training_and_names_its_rows(lm: Path, tmp_path: Path) -> None:
    path = runs.write_rows(tmp_path / "train.jsonl", runs.rows(4, seed=1))
    run = runs.config(tmp_path / "run", lm, path, batch_size=2, lr=1e30, shuffle=False, warmup_fraction=0.0)
    with pytest.raises(NonFiniteError) as caught:
        train(run, progress=False, plots=False)
    assert str(caught.value) == (
        f"step 2: the loss is nan; rewards that are not finite: {path}:3, {path}:4. The step was not "
        f"applied, and {run.output}/not-finite.jsonl has these rows; a lower train.lr, more warm-up or "
        "train.precision = 'fp32' may help"
    )
    kept = [json.loads(line) for line in (Path(run.output) / "not-finite.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["responses"] for row in kept] == [row["responses"] for row in given[2:]]


def test_weights_of_less_precision_are_trained_in_fp32(lm: Path, text_data: Path, tmp_path: Path) -> None:
    backbone = Component("causal-lm", {"model": str(lm), "dtype": "bfloat16"})
    # At this rate no update is as large as half a unit in the last place of a bf16 weight.
    settings = {"backbone": backbone, "lr": 1e-5, "max_steps": 3, "schedule": "constant", "precision": "bf16"}
    run = runs.config(tmp_path / "run", lm, text_data / "train.jsonl", **settings)
    train(run, progress=False, plots=False)
    from safetensors.torch import load_file

    before = load_file(lm / "model.safetensors")
    after = load_file(tmp_path / "run" / "last" / "model.safetensors")
    moved = [float((after[name].float() - before[name].bfloat16().float()).abs().max()) for name in before]
    assert all(0 < value < 1e-4 for value in moved)


def test_loggers_of_plugins_see_every_record_and_cannot_end_the_training(
    lm: Path, text_data: Path, tmp_path: Path
) -> None:
    seen = []

    @hookimpl
    def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
        seen.append((record["kind"], record["step"], run_dir))

    @hookimpl(specname="basereward_log")
    def failing(record: Mapping[str, Any], run_dir: Path) -> None:
        raise OSError("the logger's server is down")

    good, broken = types.ModuleType("good_logger"), types.ModuleType("broken_logger")
    good.basereward_log = basereward_log  # type: ignore[attr-defined]
    broken.failing = failing  # type: ignore[attr-defined]
    run = runs.config(
        tmp_path / "run", lm, text_data / "train.jsonl", text_data / "eval.jsonl", max_steps=4, eval_every=4
    )
    with pytest.warns(PluginWarning) as caught:
        train(run, progress=False, plots=False, plugins=PluginManager([broken, good]))
    assert [str(warning.message) for warning in caught] == [
        "plugin 'broken_logger' failed in basereward_log and gets no more events: "
        "OSError: the logger's server is down"
    ]
    run_dir = tmp_path / "run"
    assert seen == [
        ("step", 2, run_dir),
        ("step", 4, run_dir),
        ("evaluation", 4, run_dir),
        ("checkpoint", 4, run_dir),
    ]


@pytest.mark.parametrize("before", [False, True])
def test_algorithms_are_deterministic_while_a_training_asks_for_it(
    lm: Path, text_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restored afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    seen = []

    @hookimpl
    def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))

    logger = types.ModuleType("logger")
    logger.basereward_log = basereward_log  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(before)
    try:
        for name in ("one", "other"):
            run = runs.config(
                tmp_path / name, lm, text_data / "train.jsonl", max_steps=2, deterministic=True, log_every=1
            )
            train(run, progress=False, plots=False, plugins=PluginManager([logger]))
            assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch.use_deterministic_algorithms(False)
    assert set(seen) == {(True, ":4096:8")}
    weights = [(tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] == weights[1]


def test_progress_is_lines_where_there_is_no_terminal(
    lm: Path, text_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.config(
        tmp_path / "run", lm, text_data / "train.jsonl", text_data / "eval.jsonl", max_steps=2, eval_every=2
    )
    train(run)
    output = capsys.readouterr()
    assert output.out == ""
    reading, held_out, building, start, training, first, validating, second, *rest = output.err.splitlines()
    assert (reading, held_out) == ("reading data.train: 0/22", "reading data.eval: 0/8")
    assert building == f"building a model on backbone {run.backbone.name}"
    assert (training, validating) == ("training: 0/2", "validating: 0/8")
    num_parameters = sum(
        parameter.numel() for parameter in RewardModel.build(backbone=run.backbone).paradigm.parameters()
    )
    assert start.startswith(f"training language, head ({num_parameters:,} parameters) on cpu in fp32 (auto: ")
    assert start.endswith("): 2 steps of 4 comparisons")
    assert first.startswith("step 2/2: ")
    number = r"-?[0-9.e-]+"
    assert re.search(
        rf" loss {number}  accuracy {number}  margin {number}  lr {number}  gradient norm {number}  "
        rf"{number} pairs/s  {number}k? tokens/s  fill 100%  0:00:00 left$",
        first,
    )
    assert second.startswith("step 2/2: held-out accuracy ")
    assert not any("Writing" in line or "Loading" in line for line in rest)


def test_progress_is_a_bar_in_a_terminal(
    lm: Path,
    text_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = runs.config(
        tmp_path / "run", lm, text_data / "train.jsonl", text_data / "eval.jsonl", max_steps=2, eval_every=2
    )
    train(run)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "reading data.train" in text
    bars = [line for line in re.split(r"[\r\n]", text) if line.startswith("training \u2501")]
    assert re.search(r" 2/2 loss [0-9.]+  accuracy [0-9.]+  .*held-out [0-9.]+ left 00:00", bars[-1])
    assert "step 2/2: held-out accuracy " in text


def test_nothing_is_prepared_while_the_model_is_evaluated(
    lm: Path, text_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    encode = CausalLM.encode

    def noting(self: CausalLM, comparison: Comparison) -> Tree:
        # A backbone's `encode` may depend on the mode, as one does that draws views of images in training.
        time.sleep(0.02)  # so that both threads are at it for long
        if threading.current_thread().name.startswith("basereward-prepare"):  # for training
            modes.append(self.training)
        return encode(self, comparison)

    monkeypatch.setattr(CausalLM, "encode", noting)
    run = runs.config(
        tmp_path / "run", lm, text_data / "train.jsonl", text_data / "eval.jsonl", eval_every=1, log_every=1
    )
    train(run, progress=False, plots=False)
    assert modes == [True] * 22
