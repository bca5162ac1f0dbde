"""`RewardTrainer`: TRL's calls, with data in memory or in files, are the training of a run file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import tiny

from basereward import Comparison, RewardConfig, RewardModel, RewardTrainer, load_run, read_comparisons, train
from basereward.config import LoraConfig
from basereward.config.conversion import Component
from basereward.errors import ConfigError, DataError
from basereward.training.trainer_config import lora_of

PAIRS = [{"prompt": f"question {number}", "chosen": "yes " * 3, "rejected": "no"} for number in range(8)]
QUICK: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def llama(tiny_models: dict[str, Path]) -> str:
    return str(tiny_models["llama"])


def test_a_script_for_trl_trains_by_its_import_alone(llama: str) -> None:
    args = RewardConfig(
        output_dir="out", learning_rate=1e-3, num_train_epochs=2, eval_strategy="epoch", **QUICK
    )
    trainer = RewardTrainer(model=llama, args=args, train_dataset=PAIRS, eval_dataset=PAIRS[:4])
    result = trainer.train()
    assert result.num_steps == 2
    found = trainer.evaluate()
    assert found["eval_num_pairs"] == 4
    assert 0 <= found["eval_accuracy"] <= 1
    trainer.save_model("saved")
    rows = [Comparison("question 1", ["yes", "no"])]
    assert RewardModel.load("saved").score(rows) == trainer.model.score(rows)


def test_it_is_the_training_of_its_run_file(llama: str) -> None:
    args = RewardConfig(output_dir="out", warmup_steps=1, gradient_accumulation_steps=2, **QUICK)
    trainer = RewardTrainer(llama, args, train_dataset=PAIRS)
    trainer.train()
    run = load_run("out/run.toml", ["output=again"])
    # Eight pairs a step, three epochs of one step, of which two are taken.
    assert (run.train.batch_size, run.train.micro_batch_size, run.train.max_steps) == (8, 4, 2)
    assert (run.train.lr, run.train.schedule, run.train.warmup_fraction) == (1e-4, "linear", 1 / 2)
    assert run.backbone.options["max_tokens"] == 1024
    train(run, progress=False, plots=False)
    rows = [Comparison("question 1", ["yes", "no"])]
    assert RewardModel.load("again/model").score(rows) == trainer.model.score(rows)


def test_rows_with_images_comparisons_and_files_are_read_alike(tiny_models: dict[str, Path]) -> None:
    image = tiny.image()
    assert isinstance(image, PIL.Image.Image)
    image.save("a.png")
    rows = [{**row, "images": [image]} for row in PAIRS]
    Path("rows.jsonl").write_text("".join(json.dumps({**row, "images": ["a.png"]}) + "\n" for row in PAIRS))
    comparisons = [
        Comparison(row["prompt"], [row["chosen"], row["rejected"]], images=[image], ranks=[0, 1])
        for row in PAIRS
    ]
    rewards = []
    named = [{**row, "images": ["a.png"]} for row in PAIRS]  # a path from the working directory
    inline = base64.b64encode(Path("a.png").read_bytes()).decode("ascii")
    urls = [{**row, "images": [f"data:image/png;base64,{inline}"]} for row in PAIRS]
    for number, data in enumerate(
        (rows, named, urls, comparisons, "rows.jsonl", read_comparisons("rows.jsonl"))
    ):
        args = RewardConfig(output_dir=f"out-{number}", **QUICK)
        trainer = RewardTrainer(tiny_models["qwen2_vl"], args, train_dataset=data)
        trainer.train()
        assert trainer.config.backbone.name == "qwen-vl"
        rewards.append(trainer.model.score(comparisons[:1]))
    assert rewards == rewards[:1] * 6


def test_a_model_in_memory_goes_on_from_its_weights(llama: str) -> None:
    model = RewardModel.build(backbone=Component("causal-lm", {"model": llama}), head=Component("linear"))
    args = RewardConfig(output_dir="out", head="linear", learning_rate=0.0, **QUICK)
    trainer = RewardTrainer(model, args, train_dataset=PAIRS)
    trainer.train()
    rows = [Comparison("question 1", ["yes", "no"])]
    assert trainer.model.score(rows) == model.score(rows)


def test_it_is_resumed_from_the_same_start(llama: str) -> None:
    model = RewardModel.build(backbone=Component("causal-lm", {"model": llama}))
    for steps, resumes in ((1, False), (1, True)):
        args = RewardConfig(output_dir="out", **{**QUICK, "max_steps": steps})
        trainer = RewardTrainer(model, args, train_dataset=PAIRS)
        assert trainer.train(resume_from_checkpoint=resumes).num_steps == 1
    assert load_run("out/run.toml").init == "out-data/start"
    assert Path("out-data/start/reward_config.json").is_file()


def test_held_out_data_may_be_left_for_the_end(llama: str) -> None:
    args = RewardConfig(output_dir="out", eval_strategy="no", metric_for_best_model="log_loss", **QUICK)
    trainer = RewardTrainer(llama, args, train_dataset=PAIRS, eval_dataset=PAIRS[:4])
    assert trainer.train().best == {}
    assert trainer.evaluate()["eval_num_pairs"] == 4


def test_steps_between_evaluations_are_those_between_records() -> None:
    config = RewardConfig(eval_strategy="steps", logging_steps=7)
    assert config.train_config(num_rows=None, lora=None, has_eval=True).eval_every == 7


def test_a_file_of_somebody_else_is_not_replaced(llama: str) -> None:
    Path("out-data").mkdir()
    Path("out-data/train.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"out-data holds train.jsonl and no .basereward-data"):
        RewardTrainer(llama, RewardConfig(output_dir="out", **QUICK), train_dataset=PAIRS)
    assert Path("out-data/train.jsonl").read_text() == "mine\n"


def test_adapters_are_those_of_peft(llama: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], modules_to_save=["score"]
    )
    wanted = LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj"))
    assert lora_of(config) == wanted
    assert (
        lora_of({"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["v_proj", "q_proj"]})
        == wanted
    )
    assert lora_of(wanted) is wanted
    trainer = RewardTrainer(
        llama, RewardConfig(output_dir="out", **QUICK), train_dataset=PAIRS, peft_config=config
    )
    assert trainer.train().num_steps == 2
    assert trainer.config.train.lora == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 4, "bias": "all"}, "peft_config.bias is 'all', which is not trained here"),
        ({"r": 4, "rank_pattern": {"q_proj": 8}}, "peft_config.rank_pattern is"),
        ({"r": 4, "modules_to_save": ["embed_tokens"]}, "peft_config.modules_to_save names embed_tokens"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_config is of PROMPT_TUNING; allowed: LoraConfig"),
    ],
)
def test_adapters_of_other_kinds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lora_of(settings)


def test_mistakes_say_what_to_give(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nowhere is no directory of a transformers model; or give the"):
        RewardTrainer("nowhere", train_dataset=PAIRS)
    with pytest.raises(DataError, match="has no rows"):
        RewardTrainer(llama, train_dataset=[])
    trainer = RewardTrainer(llama, RewardConfig(output_dir="out", **QUICK), train_dataset=PAIRS)
    with pytest.raises(ConfigError, match=r"call train\(\) first"):
        trainer.evaluate(PAIRS)
    trainer.train()
    with pytest.raises(ConfigError, match="no held-out data; give eval_dataset"):
        trainer.evaluate()
    assert trainer.evaluate(PAIRS)["eval_num_pairs"] == 8
    with pytest.raises(ConfigError, match="out"):
        RewardTrainer(llama, RewardConfig(output_dir="out", **QUICK), train_dataset=PAIRS).train()
    again = RewardConfig(output_dir="out", overwrite_output_dir=True, **QUICK)
    assert RewardTrainer(llama, again, train_dataset=PAIRS).train().num_steps == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="read their data from a file; give its path"):
        RewardTrainer(llama, train_dataset=PAIRS)
