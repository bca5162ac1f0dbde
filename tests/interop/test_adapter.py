"""A LoRA adapter with a head scores after import as in the tool that trained it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from safetensors.torch import load_file, save_file

from basereward import RewardModel
from basereward.cli import main
from basereward.errors import ConfigError, ModelError
from basereward.interop.importing import import_model

pytest.importorskip("peft")

ROWS = tiny.comparisons(images=False)


def with_adapter(model: Any, **options: Any) -> Any:
    """Return a model with random LoRA weights that change what it computes."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def texts(directory: Path, row: Any) -> tuple[Any, list[str]]:
    """Return the tokenizer and the text of each conversation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    conversations = [
        [{"role": "user", "content": row.prompt[0].text}, {"role": "assistant", "content": response}]
        for response in row.responses
    ]
    return tokenizer, [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
def test_an_adapter_of_trl_scores_as_in_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    base = tiny.save_causal_lm(tmp_path / "base", "llama")
    model = with_adapter(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1),
        task_type="SEQ_CLS",
        modules_to_save=["score"],
        **options,
    )
    model.save_pretrained(tmp_path / "adapter")
    imported, layout = import_model(tmp_path / "adapter", tmp_path / "model", base=base)
    assert layout.layers == (("score.weight", "score.bias"),)
    for row in ROWS:
        tokenizer, conversations = texts(base, row)
        batches = [tokenizer(text, return_tensors="pt", add_special_tokens=False) for text in conversations]
        with torch.no_grad():
            expected = [model(**batch).logits.item() for batch in batches]
            with model.disable_adapter():
                without = [model(**batch).logits.item() for batch in batches]
        assert imported.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)
        assert without != pytest.approx(expected, abs=1e-3)


def test_an_adapter_of_llama_factory_has_its_head_in_a_file_of_its_own(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny.save_causal_lm(tmp_path / "base", "llama")
    model = with_adapter(AutoModelForCausalLM.from_pretrained(base), task_type="CAUSAL_LM")
    model.save_pretrained(tmp_path / "adapter")
    width = model.config.hidden_size
    weight, bias = torch.randn(1, width), torch.randn(1)
    head = {"v_head.summary.weight": weight, "v_head.summary.bias": bias}
    save_file(head, tmp_path / "adapter" / "value_head.safetensors")
    imported, _ = import_model(tmp_path / "adapter", tmp_path / "model", base=base)
    for row in ROWS:
        tokenizer, conversations = texts(base, row)
        for text, reward in zip(conversations, imported.score([row])[0], strict=True):
            batch = tokenizer(text, return_tensors="pt", add_special_tokens=False)
            with torch.no_grad():
                state = model(**batch, output_hidden_states=True).hidden_states[-1][0, -1]
            assert reward == pytest.approx((weight @ state + bias).item(), abs=TINY_REWARD)


def test_an_adapter_of_a_vision_language_model_scores_as_its_merged_model(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    base = tiny.save_qwen_vl(tmp_path / "base")
    model = with_adapter(AutoModelForImageTextToText.from_pretrained(base))
    model.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    score = torch.randn(1, model.config.get_text_config().hidden_size)
    save_file({**load_file(path), "base_model.model.score.weight": score}, path)
    imported, _ = import_model(tmp_path / "adapter", tmp_path / "model", base=base)
    # What ms-swift writes with --merge_lora: the whole model, with the same head.
    shutil.copytree(base, tmp_path / "merged")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    save_file({"score.weight": score}, tmp_path / "merged" / "head.safetensors")
    merged, _ = import_model(tmp_path / "merged", tmp_path / "other")
    rows = tiny.comparisons()
    for mine, theirs in zip(imported.score(rows), merged.score(rows), strict=True):
        assert mine == pytest.approx(theirs, abs=TINY_REWARD)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Return an adapter of the model beside it, in `base`."""
    from transformers import AutoModelForSequenceClassification

    base = tiny.save_causal_lm(tmp_path / "base", "llama")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    with_adapter(model, task_type="SEQ_CLS", modules_to_save=["score"]).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_without_its_base_names_it(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(adapter), "--output", str(tmp_path / "model")]) == 2
    assert "give that model's directory by --base DIR" in capsys.readouterr().err
    command = ["import", str(adapter), "--output", str(tmp_path / "model"), "--base", str(tmp_path / "base")]
    assert main(command) == 0
    assert RewardModel.load(tmp_path / "model").record["base_model"] == str(tmp_path / "base")


def test_what_does_not_fit_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --base"):
        import_model(tmp_path / "base", tmp_path / "model", base=tmp_path / "base")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    [first, *_] = sorted(name for name in tensors if "lora_A" in name)
    save_file({name.replace("layers.0", "layers.7"): value for name, value in tensors.items()}, path)
    with pytest.raises(ModelError, match="tensors have no place there"):
        import_model(adapter, tmp_path / "model", base=tmp_path / "base")
    save_file({name: value for name, value in tensors.items() if name != first}, path)
    with pytest.raises(ModelError, match="1 are absent"):
        import_model(adapter, tmp_path / "model", base=tmp_path / "base")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(ConfigError, match="only LORA is read"):
        import_model(adapter, tmp_path / "model", base=tmp_path / "base")
    for text in ("[1]", "{", '{"peft_type": "LORA", "peft_type": "IA3"}'):
        (adapter / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match="adapter_config.json can't be read"):
            import_model(adapter, tmp_path / "model", base=tmp_path / "base")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # PEFT imports the module of this name for layers that Megatron shards.
        (
            {"megatron_config": {"a": 1}, "megatron_core": "planted"},
            "sets megatron_config, megatron_core, which is not read",
        ),
        ({"use_qalora": True}, "sets use_qalora"),
        ({"alora_invocation_tokens": [1]}, "sets alora_invocation_tokens"),
        ({"a_key_of_next_year": "x"}, "sets a_key_of_next_year"),
        # These begin by taking a part out of the base model's weights.
        ({"init_lora_weights": "pissa"}, "began as 'pissa', which changes the base model's weights"),
        ({"init_lora_weights": "pissa_niter_16"}, "began as 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "began as 'olora'"),
        ({"init_lora_weights": "loftq"}, "began as 'loftq'"),
    ],
)
def test_an_adapter_that_means_more_than_is_read_is_refused(
    changes: dict[str, Any], message: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=message):
        import_model(adapter, tmp_path / "model", base=tmp_path / "base")
    assert not (tmp_path / "model").exists()


def test_settings_that_change_the_merged_weights_are_read(adapter: Path, tmp_path: Path) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    rewards = []
    for alpha in (8, 32):
        path.write_text(json.dumps({**config, "lora_alpha": alpha, "init_lora_weights": "gaussian"}))
        model, _ = import_model(adapter, tmp_path / f"model-{alpha}", base=tmp_path / "base")
        rewards.append(model.score(ROWS[:1])[0])
    assert rewards[0] != pytest.approx(rewards[1], abs=1e-3)
