"""TRL's own example of reward training: the same lines by our import, and by TRL's where it is there."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from stand_in_hub import Hub

import basereward
from basereward import RewardConfig, RewardModel, RewardTrainer
from basereward.errors import ConfigError
from basereward.training.trainer import ARGUMENTS

CONVERSATIONS = [
    {
        "chosen": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": "yes yes"},
        ],
        "rejected": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": "no"},
        ],
        "score_chosen": 8.5,
        "score_rejected": 6.0,
    }
    for number in range(8)
]
"""The columns of trl-lib/ultrafeedback_binarized, which TRL's example loads."""

TEXTS = [
    {"chosen": f"question {number} the answer is yes", "rejected": f"question {number} the answer is no"}
    for number in range(8)
]
"""The implicit-prompt form as texts."""

FORMS = {"conversations": CONVERSATIONS, "texts": TEXTS}
QUICK: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "disable_tqdm": True,
    "bf16": False,
}


def example(library: ModuleType, model: str, rows: list[dict[str, Any]]) -> Any:
    """Train as TRL's documentation and its script `trl reward` do, by the names of either library."""
    from datasets import Dataset

    dataset = Dataset.from_list(rows).train_test_split(test_size=0.25, shuffle=False)
    training_args = library.RewardConfig(
        output_dir="out", eval_strategy="steps", eval_steps=1, learning_rate=1e-3, report_to="none", **QUICK
    )
    trainer = library.RewardTrainer(
        model=model,
        args=training_args,
        train_dataset=dataset["train"],
        eval_dataset=dataset["test"] if training_args.eval_strategy != "no" else None,
        peft_config=None,
    )
    trainer.train(resume_from_checkpoint=None)
    trainer.save_model(training_args.output_dir)
    return trainer


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def llama(tiny_models: dict[str, Path]) -> str:
    return str(tiny_models["llama"])


@pytest.mark.parametrize("form", FORMS)
def test_the_example_trains(form: str, llama: str) -> None:
    pytest.importorskip("datasets")
    trainer = example(basereward, llama, FORMS[form])
    # Six of eight rows are left to train on: two passes of at most four.
    assert trainer.result.num_steps == 2
    assert trainer.evaluate()["eval_num_pairs"] == 2
    assert trainer.save_model("out") == Path("out/model")
    assert len(RewardModel.load("out/model").score({"prompt": "question 1", "responses": ["yes", "no"]})) == 2


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore")  # TRL's and those of what it imports are not ours to mend
def test_the_example_trains_by_trl(form: str, llama: str) -> None:
    trl = pytest.importorskip("trl", reason="the extra rl is not installed")
    trainer = example(trl, llama, FORMS[form])
    assert trainer.state.global_step == 2
    assert trainer.evaluate()["eval_loss"] > 0
    assert Path("out/model.safetensors").is_file()


def test_a_model_of_the_hub_is_fetched(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub.put_in_place(tmp_path / "hub", monkeypatch)
    (hub.root / "Qwen").mkdir(parents=True)
    (hub.root / "Qwen" / "Qwen2.5-0.5B-Instruct").symlink_to(tiny_models["qwen2"])
    trainer = RewardTrainer(model="Qwen/Qwen2.5-0.5B-Instruct", train_dataset=CONVERSATIONS)
    assert trainer.args.output_dir == "Qwen2.5-0.5B-Instruct-Reward"  # as TRL names it
    assert trainer.config.backbone.options["model"] == str(hub.root / "Qwen" / "Qwen2.5-0.5B-Instruct")
    assert "*.bin" in hub.left_out  # pickles, beside the safetensors that are read
    assert "*.safetensors" not in hub.left_out
    with pytest.raises(ConfigError) as error:
        RewardTrainer(model="Qwen/none", train_dataset=CONVERSATIONS)
    assert str(error.value) == (
        "Qwen/none is no directory, and can't be fetched from the hub: "
        "cannot find the requested files in the disk cache"
    )


def test_the_directory_may_come_first_and_the_last_model_be_wanted(llama: str) -> None:
    args = RewardConfig("out", load_best_model_at_end=False, **QUICK)
    trainer = RewardTrainer(llama, args, train_dataset=CONVERSATIONS, eval_dataset=CONVERSATIONS)
    trainer.train()
    assert trainer.save_model() == trainer.result.last_dir
    trainer.args.load_best_model_at_end = True
    assert trainer.save_model() == trainer.result.model_dir


def test_a_checkpoint_is_not_named(llama: str) -> None:
    trainer = RewardTrainer(llama, RewardConfig("out", **QUICK), train_dataset=CONVERSATIONS)
    with pytest.raises(ConfigError) as error:
        trainer.train(resume_from_checkpoint="out/checkpoint-500")  # type: ignore[arg-type]
    assert str(error.value) == (
        "resume_from_checkpoint is 'out/checkpoint-500'; True goes on from the newest checkpoint of out"
    )


def test_a_script_may_say_in_words_whether_to_go_on(llama: str) -> None:
    args = RewardConfig("out", resume_from_checkpoint="False", **QUICK)
    trainer = RewardTrainer(llama, args, train_dataset=CONVERSATIONS)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    result = trainer.train(resume_from_checkpoint="True")
    assert result.num_steps == 2


def test_metrics_are_printed_and_kept_as_scripts_do(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = RewardTrainer(llama, RewardConfig("out", **QUICK), train_dataset=TEXTS, eval_dataset=TEXTS)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.save_metrics("other", {"other_loss": 1.0})
    trainer.accelerator.print("done")
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    assert (trainer.accelerator.process_index, trainer.accelerator.num_processes) == (0, 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "***** eval metrics *****"
    assert "  eval_num_pairs = 8" in printed
    assert printed[-1] == "done"
    assert json.loads(Path("out/eval_results.json").read_text()) == metrics
    assert json.loads(Path("out/all_results.json").read_text()) == {**metrics, "other_loss": 1.0}


def test_damaged_metrics_of_an_earlier_run_are_named(llama: str) -> None:
    trainer = RewardTrainer(llama, RewardConfig("out", **QUICK), train_dataset=TEXTS)
    Path("out").mkdir()
    for text in ('{"eval_loss": ', "[1]"):
        Path("out/all_results.json").write_text(text)
        with pytest.raises(ConfigError, match=r"^out/all_results\.json is damaged: "):
            trainer.save_metrics("eval", {"eval_loss": 1.0})
        assert not Path("out/eval_results.json").exists()


def test_a_script_uploads_its_model(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub.put_in_place(tmp_path / "hub", monkeypatch)
    args = RewardConfig("out", push_to_hub=True, hub_model_id="me/mine", **QUICK)
    trainer = RewardTrainer(llama, args, train_dataset=TEXTS)
    trainer.train()
    trainer.save_model("out")
    assert (hub.root / "me" / "mine" / "head.safetensors").is_file()
    args.hub_model_id = None
    assert trainer.hub_model_id == "someone/out"
    trainer.push_to_hub(dataset_name="preferences")
    assert (hub.root / "someone" / "out" / "head.safetensors").is_file()


def test_a_token_is_not_shown_with_the_settings() -> None:
    assert "secret" not in repr(RewardConfig("out", hub_token="secret"))


def test_the_dtype_and_the_revision_of_trls_scripts_are_taken(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub.put_in_place(tmp_path / "hub", monkeypatch)
    (hub.root / "owner").mkdir(parents=True)
    (hub.root / "owner" / "name").symlink_to(tiny_models["qwen2"])
    said = {"dtype": "bfloat16", "revision": "v2", "attn_implementation": None, "trust_remote_code": False}
    for given in (said, json.dumps(said)):
        args = RewardConfig("out", model_init_kwargs=given, backbone_options='{"layer": 1}')
        options = RewardTrainer("owner/name", args, train_dataset=TEXTS).config.backbone.options
        assert options["dtype"] == "bfloat16"
        assert options["layer"] == 1
    assert hub.revision == "v2"


def test_weights_in_4_bits_are_taken(llama: str) -> None:
    config = SimpleNamespace(load_in_4bit=True)
    trainer = RewardTrainer(llama, train_dataset=TEXTS, quantization_config=config, peft_config={"r": 4})
    assert trainer.config.backbone.options["quantize"] == "4bit"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"trust_remote_code": True},
            "trust_remote_code is True; no code of a checkpoint is run; leave it out",
        ),
        (
            {"model_init_kwargs": {"attn_implementation": "flash_attention_2"}},
            "model_init_kwargs has attn_implementation; allowed: dtype, revision; options of the backbone "
            "are given by backbone_options",
        ),
        (
            {"model_init_kwargs": "dtype=bfloat16"},
            "model_init_kwargs is 'dtype=bfloat16', which is no JSON: "
            "Expecting value: line 1 column 1 (char 0)",
        ),
        (
            {"backbone_options": "[1]"},
            "backbone_options is '[1]'; write a table, such as '{\"dtype\": \"bfloat16\"}'",
        ),
    ],
)
def test_settings_that_a_script_may_not_make(settings: dict[str, Any], message: str, llama: str) -> None:
    with pytest.raises(ConfigError) as error:
        RewardTrainer(llama, RewardConfig("out", **settings), train_dataset=TEXTS)
    assert str(error.value) == message


def test_weights_in_8_bits_are_refused(llama: str) -> None:
    with pytest.raises(ConfigError) as error:
        RewardTrainer(llama, train_dataset=TEXTS, quantization_config=SimpleNamespace(load_in_4bit=False))
    assert str(error.value) == "quantization_config is of 8 bits; allowed: load_in_4bit=True"


def test_the_models_own_tokenizer_may_be_handed_over_and_no_other(
    llama: str, tiny_models: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.pad_token = tokenizer.eos_token  # as many scripts do
    RewardTrainer(llama, RewardConfig("a"), train_dataset=TEXTS, processing_class=tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(ConfigError, match="differs from the model's own in its words or its chat template"):
        RewardTrainer(llama, RewardConfig("b"), train_dataset=TEXTS, processing_class=tokenizer)
    with pytest.raises(ConfigError, match="tiny makes its tokens by itself; leave it out"):
        RewardTrainer({"name": "tiny"}, train_dataset=TEXTS, processing_class=tokenizer)


def test_arguments_that_are_not_taken_are_named_all_at_once(llama: str) -> None:
    with pytest.raises(ConfigError) as error:
        RewardConfig("out", learning_rat=1e-4, save_strategy="no", use_cpu=True)  # type: ignore[call-arg]
    assert str(error.value) == (
        "RewardConfig does not take these; leave them out:\n"
        "- learning_rat; did you mean 'learning_rate'?\n"
        "- save_strategy: checkpoints come with each evaluation, or every save_steps\n"
        "- use_cpu: nothing here is set by it"
    )
    with pytest.raises(ConfigError) as error:
        RewardTrainer(llama, train_dataset=TEXTS, callbacks=[])  # type: ignore[call-arg]
    assert str(error.value) == (
        "RewardTrainer does not take these; leave them out:\n"
        "- callbacks: numbers go to trackers by report_to, and early stopping is train.patience of a run file"
    )


@pytest.mark.external
@pytest.mark.filterwarnings("ignore")  # as above
def test_every_argument_of_trl_is_taken_or_refused_by_name(llama: str) -> None:
    trl = pytest.importorskip("trl", reason="the extra rl is not installed")
    of_trainer = [name for name in inspect.signature(trl.RewardTrainer.__init__).parameters if name != "self"]
    assert [name for name in of_trainer if name in ARGUMENTS] == list(
        ARGUMENTS
    )  # all are TRL's, in its order
    ours = {field.name: field.default for field in dataclasses.fields(RewardConfig)}
    theirs = {field.name: field.default for field in dataclasses.fields(trl.RewardConfig)}
    named = {"head", "loss", "backbone_options", "fresh_head", "overwrite_output_dir", "warmup_ratio"}
    assert ours.keys() - theirs.keys() <= named  # our own, and transformers' of earlier versions
    for taker, names in (
        (RewardTrainer, set(of_trainer) - set(ARGUMENTS)),
        (RewardConfig, theirs.keys() - ours),
    ):
        with pytest.raises(ConfigError) as error:
            taker(**dict.fromkeys(names, None))
        lines = str(error.value).splitlines()[1:]
        assert {line.split(":")[0].split(";")[0] for line in lines} == {f"- {name}" for name in names}
