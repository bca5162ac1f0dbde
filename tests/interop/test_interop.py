"""Exported models score the same in transformers, and imported ones the same as in their tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from safetensors.torch import load_file, save_file
from torch import nn

from basereward import Comparison, RewardModel
from basereward.cli import main
from basereward.config import Component
from basereward.errors import ConfigError, DataError, ModelError
from basereward.interop.exporting import export_model
from basereward.interop.importing import import_model

TEXTS = tiny.comparisons(images=False)


def build(backbone: Component, **head: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(backbone=backbone, head=Component(head.pop("name", "linear"), head))
    model.paradigm.eval()
    return model


def text_model(directory: Path, kind: str = "llama", **head: Any) -> RewardModel:
    return build(Component("causal-lm", {"model": str(tiny.save_causal_lm(directory, kind))}), **head)


def scores_in_transformers(
    directory: Path, row: Comparison, model: Any = None, side: str = "right"
) -> list[float]:
    """Return what a user of transformers gets: the template, one batch padded on a side, one logit."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if model is None:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            directory, num_labels=1, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    texts = [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": row.prompt[0].text},
                {"role": "assistant", "content": response},
            ],
            tokenize=False,
        )
        for response in row.responses
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side, add_special_tokens=False)
    with torch.no_grad():
        return model.eval()(**batch).logits[:, 0].tolist()


@pytest.mark.parametrize("kind", tiny.LM_KINDS)
def test_transformers_gives_an_exported_model_the_same_scores(kind: str, tmp_path: Path) -> None:
    model = text_model(tmp_path / "base", kind, bias=False)
    exported = export_model(model, tmp_path / "out")
    name = kind.title().replace("_", "")
    assert (exported.architecture, exported.offset) == (f"{name}ForSequenceClassification", 0.0)
    for row in TEXTS:
        assert scores_in_transformers(tmp_path / "out", row) == pytest.approx(
            model.score([row])[0], abs=TINY_REWARD
        )


def test_a_bias_is_told_since_the_checkpoint_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = text_model(tmp_path / "base", name="mlp", num_layers=3, activation="none")
    model.save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 0
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in model.head.layers]
    (_, b1), (w2, b2), (w3, b3) = layers
    offset = (w3 @ (w2 @ b1 + b2) + b3).item()
    assert f"its logits are the rewards less {offset:.4f}" in capsys.readouterr().err
    for row in TEXTS:
        expected = [reward - offset for reward in model.score([row])[0]]
        assert scores_in_transformers(tmp_path / "out", row) == pytest.approx(expected, abs=TINY_REWARD)


def test_where_padding_is_the_end_of_a_turn_another_token_pads(tmp_path: Path) -> None:
    # As in SmolLM2: transformers reads the last token that is no padding, and would look before the end.
    model = text_model(tmp_path / "base", bias=False)
    tokenizer = model.backbone.tokenizer
    tokenizer.pad_token = "<|im_end|>"
    export_model(model, tmp_path / "out")
    assert tokenizer.pad_token == "<|im_end|>"
    for row in TEXTS:
        assert scores_in_transformers(tmp_path / "out", row) == pytest.approx(
            model.score([row])[0], abs=TINY_REWARD
        )


def test_weights_in_several_files_get_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from basereward.backbones import transformers_backbone

    def save_in_shards(model: Any, directory: Path) -> None:
        model.save_pretrained(directory, max_shard_size="20KB")

    monkeypatch.setattr(transformers_backbone, "save_model", save_in_shards)
    model = text_model(tmp_path / "base", bias=False)
    export_model(model, tmp_path / "out")
    assert (tmp_path / "out" / "model-score.safetensors").is_file()
    [row, *_] = TEXTS
    assert scores_in_transformers(tmp_path / "out", row) == pytest.approx(
        model.score([row])[0], abs=TINY_REWARD
    )


def test_the_template_for_generation_is_as_it_was(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = text_model(tmp_path / "base")
    export_model(model, tmp_path / "out")
    messages = [{"role": "user", "content": "hi"}]
    mine, theirs = (
        AutoTokenizer.from_pretrained(tmp_path / name).apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        for name in ("out", "base")
    )
    assert mine == theirs


@pytest.mark.parametrize("tail", ["", "\n", "{{ strftime_now('%d %b %Y') }}\n"])
@pytest.mark.parametrize("beginning", ["", "\n", "  {% if true %}a{% endif %}\n"])
def test_an_exported_template_writes_what_it_did(beginning: str, tail: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tiny.save_causal_lm(tmp_path / "base")
    words = tiny.tokenizer()
    words.chat_template = beginning + tiny.TEMPLATE + tail
    words.save_pretrained(tmp_path / "base")
    model = build(Component("causal-lm", {"model": str(tmp_path / "base")}), bias=False)
    export_model(model, tmp_path / "out")
    messages = [{"role": "user", "content": "hi"}]
    mine, theirs = (
        each.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for each in (AutoTokenizer.from_pretrained(tmp_path / "out"), model.backbone.tokenizer)
    )
    assert mine == theirs
    row = TEXTS[0]
    [expected] = model.score([row])
    assert scores_in_transformers(tmp_path / "out", row) == pytest.approx(expected, abs=TINY_REWARD)


def test_the_template_of_an_older_processor_is_read(tmp_path: Path) -> None:
    source, _ = saved_by_transformers(tmp_path, None, None)
    (source / "chat_template.json").write_text(json.dumps({"chat_template": PLAIN}))
    model, _ = import_model(source, tmp_path / "mine")
    assert model.backbone.tokenizer.chat_template.endswith(PLAIN)
    (source / "chat_template.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^chat_template\.json of .* has no chat template"):
        import_model(source, tmp_path / "mine")


@pytest.mark.parametrize(("format", "key"), [("hf", "score.weight"), ("vllm", "language_model.score.weight")])
def test_a_vision_language_model_has_its_head_where_the_reader_looks(
    format: Any, key: str, tmp_path: Path
) -> None:
    model = build(Component("qwen-vl", {"model": str(tiny.save_qwen_vl(tmp_path / "base"))}), bias=False)
    assert export_model(model, tmp_path / "out", format).architecture == (
        "Qwen2_5_VLForSequenceClassification"
    )
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(tensors[key], model.head.layers[0].weight)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == config["text_config"]["id2label"] == {"0": "LABEL_0"}
    # What was exported can be imported, with the same scores.
    imported, _ = import_model(tmp_path / "out", tmp_path / "back")
    rows = tiny.comparisons()
    for mine, theirs in zip(model.score(rows), imported.score(rows), strict=True):
        assert theirs == pytest.approx(mine, abs=TINY_REWARD)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            {"name": "mlp", "pooling": "mean"},
            "a checkpoint of other tools reads the last layer at a response's last token; the head is MLP "
            "with other settings",
        ),
        (
            {"pooling": "mean"},
            "a checkpoint of other tools reads the last layer at a response's last token; the head is Linear "
            "with other settings",
        ),
    ],
)
def test_a_model_that_no_checkpoint_can_hold_is_refused(
    head: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        export_model(text_model(tmp_path / "base", **head), tmp_path / "out")
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "head", [{}, {"num_layers": 3, "activation": "tanh", "width": 12}], ids=["flagship", "deep"]
)
def test_a_head_of_several_layers_is_a_class_that_transformers_loads(
    head: dict[str, Any], side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from basereward.interop.sequence_classifier import register

    model = text_model(tmp_path / "base", name="mlp", **head)
    model.save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 0
    assert "RewardForSequenceClassification" in capsys.readouterr().out
    register()
    register()
    for row in TEXTS:
        found = scores_in_transformers(tmp_path / "out", row, side=side)
        assert found == pytest.approx(model.score([row])[0], abs=TINY_REWARD)


@pytest.mark.parametrize("kind", tiny.VL_KINDS)
def test_a_vision_language_model_with_a_head_of_several_layers_loads_in_transformers(
    kind: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    from basereward.interop.sequence_classifier import register

    model = build(
        Component("qwen-vl", {"model": str(tiny.save_qwen_vl(tmp_path / "base", kind))}), name="mlp"
    )
    expected = model.score(tiny.comparisons())
    export_model(model, tmp_path / "out")
    assert model.score(tiny.comparisons()) == expected
    register()
    theirs, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", num_labels=1, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    rows = [row for row in tiny.comparisons() if row.images]
    assert rows
    for row in rows:
        tree = model.backbone.encode(row)
        for response, reward in zip(tree.responses, model.score([row])[0], strict=True):
            ids = torch.tensor([tree.prompt + response])
            is_image = (ids == model.backbone.model.config.image_token_id).int()
            with torch.no_grad():
                logits = theirs.eval()(ids, mm_token_type_ids=is_image, **tree.media).logits
            assert logits.item() == pytest.approx(reward, abs=TINY_REWARD)


def test_a_model_of_transformers_keeps_its_scores(tmp_path: Path) -> None:
    # As TRL's RewardTrainer saves them: its template ends in a newline, where the reward is read.
    from transformers import LlamaForSequenceClassification

    tiny.save_causal_lm(tmp_path / "base")
    torch.manual_seed(0)
    theirs = LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    theirs.config.pad_token_id = tiny.tokenizer().pad_token_id
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.tokenizer().save_pretrained(tmp_path / "theirs")
    assert main(["import", str(tmp_path / "theirs"), "--output", str(tmp_path / "mine")]) == 0
    mine = RewardModel.load(tmp_path / "mine")
    for row in TEXTS:
        expected = scores_in_transformers(tmp_path / "theirs", row, theirs)
        assert mine.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)
    assert mine.record["imported_from"] == "transformers, TRL's RewardTrainer and ms-swift"


PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}"


def saved_by_transformers(tmp_path: Path, pad: str | None, template: str | None) -> tuple[Path, Any]:
    """Write a reward model as TRL's RewardTrainer does, with a padding token and a template."""
    from transformers import LlamaForSequenceClassification

    tiny.save_causal_lm(tmp_path / "base")
    torch.manual_seed(0)
    theirs = LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    words = tiny.tokenizer()
    words.chat_template = template
    if pad is not None:
        words.pad_token = pad
    theirs.config.pad_token_id = words.pad_token_id
    theirs.save_pretrained(tmp_path / "theirs")
    words.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", theirs


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
@pytest.mark.parametrize(
    "template",
    [
        tiny.TEMPLATE,  # a line break after the end of a turn, which is no padding
        tiny.TEMPLATE.replace("<|im_end|>\n{% endfor %}", "<|im_end|>{% endfor %}"),
        PLAIN,
        PLAIN.replace("{{ eos_token }}", "{{ eos_token }}{{ eos_token }}"),
        "  " + PLAIN,
    ],
)
def test_rewards_are_read_where_transformers_finds_the_last_token(
    template: str, pad: str | None, tmp_path: Path
) -> None:
    source, theirs = saved_by_transformers(tmp_path, pad, template)
    mine, _ = import_model(source, tmp_path / "mine")
    for row in TEXTS[:2]:
        expected = scores_in_transformers(source, row, theirs)
        assert mine.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)
    # What is exported again is read there too.
    export_model(RewardModel.load(tmp_path / "mine"), tmp_path / "out")
    again = scores_in_transformers(tmp_path / "out", TEXTS[0])
    assert again == pytest.approx(mine.score([TEXTS[0]])[0], abs=TINY_REWARD)


def test_a_model_without_a_template_is_imported_with_the_one_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, theirs = saved_by_transformers(tmp_path, None, None)
    command = ["import", str(source), "--output", str(tmp_path / "mine")]
    assert main(command) == 2
    assert "has no chat template, so that the form of its training texts isn't known" in (
        capsys.readouterr().err
    )
    (tmp_path / "plain.jinja").write_text(PLAIN)
    assert main([*command, "--chat-template", str(tmp_path / "nowhere.jinja")]) == 2
    assert main([*command, "--chat-template", "/dev/zero"]) == 2
    assert main([*command, "--chat-template", str(tmp_path / "plain.jinja")]) == 0
    row = TEXTS[0]
    words = tiny.tokenizer()
    texts = [row.prompt[0].text + response + "<|im_end|>" for response in row.responses]
    batch = words(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    with torch.no_grad():
        expected = theirs.eval()(**batch).logits[:, 0].tolist()
    mine = RewardModel.load(tmp_path / "mine")
    assert mine.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)


def value_head(bias: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = {"v_head.summary.weight": torch.randn(1, 32, generator=generator)}
    return found | ({"v_head.summary.bias": torch.tensor([0.25])} if bias else {})


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_value_head_beside_a_vision_language_model(suffix: str, tmp_path: Path) -> None:
    # As Skywork-VL-Reward is published.
    source = tiny.save_qwen_vl(tmp_path / "source")
    head = value_head()
    if suffix == "safetensors":
        save_file(head, source / "value_head.safetensors")
    else:
        torch.save(head, source / "value_head.bin")
        with pytest.raises(ConfigError) as error:
            import_model(source, tmp_path / "mine")
        assert str(error.value).endswith("; value_head.bin may hold one, which --read-bin reads")
    model, _ = import_model(source, tmp_path / "mine", read_bin=suffix == "bin")
    row = tiny.comparisons()[1]
    tree = model.backbone.encode(row)
    newline = model.backbone.tokenizer("\n")["input_ids"]
    assert all(response[-len(newline) :] == newline for response in tree.responses)
    forest = model.backbone.pack([tree])
    with torch.no_grad():
        ends = model.backbone(forest).flatten(0, 1)[forest.ends]
    expected = ends @ head["v_head.summary.weight"][0] + 0.25
    assert model.score([row])[0] == pytest.approx(expected.tolist(), abs=TINY_REWARD)


QWEN_VL_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{% set image_count.value = image_count.value + 1 %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What Qwen2.5-VL's own template writes of texts and images."""


def test_skywork_vl_reward_scores_as_its_card_does(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    source = tiny.add_language_head(tiny.save_qwen_vl(tmp_path / "Skywork-VL-Reward-7B"))
    save_file(value_head(), source / "value_head.safetensors")
    words = AutoTokenizer.from_pretrained(source)
    words.chat_template = QWEN_VL_TEMPLATE
    words.save_pretrained(source)
    assert main(["import", str(source), "--output", str(tmp_path / "mine")]) == 0
    mine = RewardModel.load(tmp_path / "mine")
    theirs = AutoModelForImageTextToText.from_pretrained(source).eval()
    head = value_head()
    for row in tiny.comparisons():
        media = mine.backbone.encode(row).media
        # As the processor does: each image token stands as often as its image has merged patches.
        sizes = (media["image_grid_thw"].prod(1) // 4).tolist() if row.images else []
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in row.prompt[0].content
        ]
        texts = []
        for response in row.responses:
            text = words.apply_chat_template(
                [{"role": "user", "content": content}, {"role": "assistant", "content": response}],
                tokenize=False,
            )
            first, *others = text.split("<|image_pad|>")
            pairs = zip(sizes, others, strict=True)
            texts.append(first + "".join("<|image_pad|>" * size + rest for size, rest in pairs))
        batch = words(texts, return_tensors="pt", padding=True, padding_side="right")
        is_image = (batch["input_ids"] == theirs.config.image_token_id).int()
        times = len(row.responses)
        given = {name: torch.cat([value] * times) for name, value in media.items()}
        with torch.no_grad():
            states = theirs(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                mm_token_type_ids=is_image,
                output_hidden_states=True,
                **given,
            ).hidden_states[-1]
        values = states @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"]
        ends = batch["attention_mask"].sum(1) - 1
        expected = values[torch.arange(times), ends].tolist()
        assert mine.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)


def test_a_head_of_two_layers_keeps_its_tanh(tmp_path: Path) -> None:
    source = tiny.save_causal_lm(tmp_path / "source")
    torch.manual_seed(3)
    dense, out = nn.Linear(32, 32), nn.Linear(32, 1)
    parts = {"rm_head.dense": dense, "rm_head.out_proj": out}
    head = {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
    }
    path = source / "model.safetensors"
    save_file({**load_file(path), **head}, path, metadata={"format": "pt"})
    model, layout = import_model(source, tmp_path / "mine")
    assert layout.title == "MM-RLHF"
    tree = model.backbone.encode(TEXTS[0])
    forest = model.backbone.pack([tree])
    with torch.no_grad():
        ends = model.backbone(forest).flatten(0, 1)[forest.ends]
        expected = out(dense(ends).tanh())[:, 0]
    assert model.score([TEXTS[0]])[0] == pytest.approx(expected.tolist(), abs=TINY_REWARD)


def test_a_directory_without_a_head_lists_what_is_known(tmp_path: Path) -> None:
    source = tiny.save_causal_lm(tmp_path / "source")
    with pytest.raises(ConfigError) as error:
        import_model(source, tmp_path / "mine")
    assert str(error.value) == (
        f"{source} has no head of a known layout (v_head.summary.weight, score.weight, "
        "language_model.score.weight, v_head.weight, rm_head.dense.weight)"
    )


def test_a_head_of_several_labels_is_refused(tmp_path: Path) -> None:
    source = tiny.save_causal_lm(tmp_path / "source")
    save_file({"v_head.summary.weight": torch.zeros(2, 32)}, source / "value_head.safetensors")
    with pytest.raises(ModelError) as error:
        import_model(source, tmp_path / "mine")
    assert str(error.value) == f"{source}: a head gives one number; the shapes of its layers are [2, 32]"


def test_a_language_model_that_gives_ratings_is_imported_as_a_rater(tmp_path: Path) -> None:
    source = tiny.add_language_head(tiny.save_qwen_vl(tmp_path / "source"))
    output = tmp_path / "rater"
    assert main(["import", str(source), "--output", str(output), "--judge", "unified-reward-score"]) == 0
    row = {
        "prompt": "what is shown?",
        "responses": ["a cat", "a dog"],
        "meta": {"critiques": ["Right.\nFinal Score: 5", "Wrong.\nFinal Score: 1"]},
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    command = ["score", str(output), "--input", str(tmp_path / "rows.jsonl"), "--quiet"]
    assert main([*command, "--output", str(tmp_path / "rewards.jsonl")]) == 0
    [line] = (tmp_path / "rewards.jsonl").read_text().splitlines()
    rewards = json.loads(line)["rewards"]
    rater = RewardModel.load(output)
    assert rater.components["paradigm"]["name"] == "pointwise"
    assert [rewards] == rater.score([Comparison(**row)])
    assert all(1 <= reward <= 5 for reward in rewards)


def test_a_language_model_that_gives_verdicts_is_imported_as_a_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.add_language_head(tiny.save_qwen_vl(tmp_path / "R1-Reward"))
    command = ["import", str(source), "--output", str(tmp_path / "judge"), "--judge", "reasoned"]
    assert main([*command, "--set", "reading=r1-reward", "--set", "max_answer_tokens=3"]) == 0
    assert "a judge, asked by the template 'reasoned'" in capsys.readouterr().out
    judge = RewardModel.load(tmp_path / "judge")
    # What is cut after three tokens is no verdict, though these scripts read one in any text.
    [row] = [row.replace(responses=row.responses[:2], ranks=None) for row in tiny.comparisons()[:1]]
    with pytest.raises(DataError, match="no verdict could be read"):
        judge.score([row])
    assert judge.statistics == {"answers": 2, "parse_failure_rate": 1.0}
    assert main([*command, "--base", str(source)]) == 2
    assert "a judge has no head and no adapter; leave out --base" in capsys.readouterr().err
    assert main([*command[:4], "--set", "reading=form"]) == 2
    assert "--set is for judges" in capsys.readouterr().err
