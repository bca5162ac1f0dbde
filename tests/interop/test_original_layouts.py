"""Checkpoints in their authors' layouts score as the authors' code computes, and as transformers does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import original_checkpoints
import pytest
import tiny
import torch
from rounding import TINY_REWARD
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    Qwen2Model,
)

from basereward import Comparison, RewardModel
from basereward.cli import main
from basereward.config import Component
from basereward.errors import ConfigError, ModelError
from basereward.interop.importing import import_model
from basereward.interop.original_layouts import rewrite_checkpoint

ROW = Comparison(
    "what is shown in the image?",
    ["a cat sits on the mat", "the dog runs"],
    images=[tiny.image(112, 56, 1)],
    ranks=[0, 1],
)


# InternVL, as modeling_intern_vit.py, modeling_internvl_chat.py and modeling_internlm2.py of its repositories
# compute it, on the authors' own tensors.


def vision_features(tensors: dict[str, Tensor], pixels: Tensor, has_norms: bool) -> Tensor:
    """Return the projected features [T * 4, D] of tiles [T, 3, 56, 56] of a tower of two heads."""
    t = {name.removeprefix("vision_model."): value for name, value in tensors.items()}
    patches = functional.conv2d(
        pixels,
        t["embeddings.patch_embedding.weight"],
        t["embeddings.patch_embedding.bias"],
        stride=14,
    )
    first = t["embeddings.class_embedding"].expand(len(pixels), -1, -1)
    x = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + t["embeddings.position_embedding"]
    width = x.shape[-1]
    for number in range(2):
        layer = {
            name.removeprefix(f"encoder.layers.{number}."): value
            for name, value in t.items()
            if name.startswith(f"encoder.layers.{number}.")
        }
        normed = functional.layer_norm(x, [width], layer["norm1.weight"], layer["norm1.bias"], 1e-6)
        q, k, v = (normed @ layer["attn.qkv.weight"].T).chunk(3, -1)
        if has_norms:
            q = functional.rms_norm(q, [width], layer["attn.q_norm.weight"], 1e-6)
            k = functional.rms_norm(k, [width], layer["attn.k_norm.weight"], 1e-6)
        q, k, v = (each.unflatten(-1, (2, -1)).transpose(1, 2) for each in (q, k, v))
        seen = ((q @ k.transpose(-1, -2)) / math.sqrt(width // 2)).softmax(-1) @ v
        out = functional.linear(
            seen.transpose(1, 2).flatten(2), layer["attn.proj.weight"], layer["attn.proj.bias"]
        )
        x = x + layer["ls1"] * out
        normed = functional.layer_norm(x, [width], layer["norm2.weight"], layer["norm2.bias"], 1e-6)
        inner = functional.gelu(functional.linear(normed, layer["mlp.fc1.weight"], layer["mlp.fc1.bias"]))
        x = x + layer["ls2"] * functional.linear(inner, layer["mlp.fc2.weight"], layer["mlp.fc2.bias"])
    grid = x[:, 1:].unflatten(1, (4, 4))  # [T, rows, columns, width]
    # Two by two patches become one token: that of above before that below, left before right.
    merged = grid.unflatten(2, (2, 2)).unflatten(1, (2, 2)).transpose(2, 3).flatten(3).flatten(1, 2)
    normed = functional.layer_norm(merged, [4 * width], t["mlp1.0.weight"], t["mlp1.0.bias"], 1e-5)
    inner = functional.gelu(functional.linear(normed, t["mlp1.1.weight"], t["mlp1.1.bias"]))
    return functional.linear(inner, t["mlp1.3.weight"], t["mlp1.3.bias"]).flatten(0, 1)


def qwen2(tensors: dict[str, Tensor], embedded: Tensor) -> Tensor:  # [L, D] -> [L, D]
    """Return the hidden states of the language model by transformers' own class."""
    model = Qwen2Model(Qwen2Config(**tiny.text_config(rms_norm_eps=1e-6))).eval()
    begin = "language_model.model."
    model.load_state_dict(
        {name.removeprefix(begin): value for name, value in tensors.items() if name.startswith(begin)}
    )
    return model(inputs_embeds=embedded[None]).last_hidden_state[0]


def internlm2(tensors: dict[str, Tensor], x: Tensor) -> Tensor:  # [L, D] -> [L, D]
    """Return the hidden states of InternLM2: 4 heads of queries, 2 of keys, 8 wide."""
    t = {name.removeprefix("language_model.model."): value for name, value in tensors.items()}
    positions = torch.arange(len(x))[:, None]
    angles = positions / 10000.0 ** (torch.arange(0, 8, 2) / 8)  # [L, 4]
    cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin().repeat(1, 2)[:, None]

    def turned(each: Tensor) -> Tensor:  # [L, heads, 8]
        return each * cos + torch.cat([-each[..., 4:], each[..., :4]], -1) * sin

    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for number in range(3):
        layer = {
            name.removeprefix(f"layers.{number}."): value
            for name, value in t.items()
            if name.startswith(f"layers.{number}.")
        }
        normed = functional.rms_norm(x, [32], layer["attention_norm.weight"], 1e-6)
        joint = (normed @ layer["attention.wqkv.weight"].T).unflatten(-1, (2, 4, 8))  # [L, keys, 2 + 2, 8]
        q = turned(joint[:, :, :2].flatten(1, 2))
        k = turned(joint[:, :, 2]).repeat_interleave(2, 1)
        v = joint[:, :, 3].repeat_interleave(2, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(8)
        shares = scores.masked_fill(later, float("-inf")).softmax(-1)
        x = x + torch.einsum("hqk,khd->qhd", shares, v).flatten(1) @ layer["attention.wo.weight"].T
        normed = functional.rms_norm(x, [32], layer["ffn_norm.weight"], 1e-6)
        gate = functional.silu(normed @ layer["feed_forward.w1.weight"].T)
        x = x + (gate * (normed @ layer["feed_forward.w3.weight"].T)) @ layer["feed_forward.w2.weight"].T
    return functional.rms_norm(x, [32], t["norm.weight"], 1e-6)


def internvl_state(
    tensors: dict[str, Tensor],
    ids: list[int],
    image_token: int,
    pixels: Tensor | None,
    language: str,
    norms: bool,
) -> Tensor:
    """Return the hidden state [D] at the last token."""
    embedding = "embed_tokens" if language == "qwen2" else "tok_embeddings"
    with torch.no_grad():
        embedded = tensors[f"language_model.model.{embedding}.weight"][ids].clone()
        if pixels is not None:
            places = torch.tensor(ids) == image_token
            embedded[places] = vision_features(tensors, pixels, norms)
        return (qwen2 if language == "qwen2" else internlm2)(tensors, embedded)[-1]


@pytest.mark.parametrize(
    ("language", "has_norms", "head"),
    [
        ("qwen2", False, "v_head.summary"),
        ("qwen2", True, "language_model.score"),
        ("internlm2", False, "v_head.summary"),
    ],
)
def test_internvl_in_its_authors_layout_scores_as_their_code(
    language: str, has_norms: bool, head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "InternVL3-8B"
    tensors = original_checkpoints.internvl_chat(source, language, has_norms=has_norms)
    weight = torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
    file = "value_head.safetensors" if head == "v_head.summary" else "model-00003-of-00003.safetensors"
    save_file({f"{head}.weight": weight}, source / file)
    assert main(["import", str(source), "--output", str(tmp_path / "mine")]) == 0, capsys.readouterr().err
    model = RewardModel.load(tmp_path / "mine")
    assert model.record["base_model"] == str(source)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mine")
    image_token = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    for row in (ROW, ROW.replace(prompt="what is it?")):
        pixels = model.backbone.encode(row).media.get("pixel_values")
        image = "" if pixels is None else f"<img>{'<IMG_CONTEXT>' * 4 * len(pixels)}</img>\n"
        assert (pixels is None) == (not row.images)
        expected = []
        for response in row.responses:
            ids = tokenizer(
                f"<|im_start|>user\n{image}{row.prompt[0].text}<|im_end|>\n"
                f"<|im_start|>assistant\n{response}<|im_end|>\n"
            )["input_ids"]
            state = internvl_state(tensors, ids, image_token, pixels, language, has_norms)
            expected.append(float(weight[0] @ state))
        assert model.score([row])[0] == pytest.approx(expected, abs=TINY_REWARD)


def test_pixels_are_those_of_internvls_preprocessing(tmp_path: Path) -> None:
    source = tmp_path / "InternVL3-8B"
    original_checkpoints.internvl_chat(source)
    save_file({"v_head.summary.weight": torch.zeros(1, 32)}, source / "value_head.safetensors")
    model, _ = import_model(source, tmp_path / "mine")
    drawn = tiny.image(112, 56, 1)
    found = model.backbone.encode(ROW).media["pixel_values"]
    # Two tiles side by side, and the whole in small; the mean and deviation are ImageNet's.
    tiles = [drawn.crop((0, 0, 56, 56)), drawn.crop((56, 0, 112, 56)), drawn.resize((56, 56), 3)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for pixels, tile in zip(found, tiles, strict=True):
        levels = torch.tensor(list(tile.tobytes()), dtype=torch.float32).reshape(56, 56, 3) / 255
        torch.testing.assert_close(pixels, ((levels - mean) / std).permute(2, 0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("language", ["qwen2", "internlm2"])
def test_a_plain_internvl_is_written_as_transformers_has_it(
    language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "InternVL3-8B", tmp_path / "InternVL3-8B-hf"
    tensors = original_checkpoints.internvl_chat(source, language)
    with pytest.raises(ConfigError, match=f"basereward import {source} --plain --output DIR`, and name DIR$"):
        RewardModel.build(backbone=Component("internvl", {"model": str(source)}))
    assert main(["import", str(source), "--plain", "--output", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: in transformers' layout\n"
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["image_seq_length"]) == ("internvl", 4)
    assert not list(out.glob("*.py"))
    loaded, report = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    head = tensors["language_model." + ("lm_head" if language == "qwen2" else "output") + ".weight"]
    assert torch.equal(loaded.lm_head.weight, head)
    # What is there is not replaced.
    assert main(["import", str(source), "--plain", "--output", str(out)]) == 2


# MM-RLHF-Reward.


def critic_text(row: Comparison, response: str, image: str, critique: str = "") -> str:
    """Return what MM-RLHF's conversation writes, with its headings and our words."""
    from basereward.paradigms.judge_template import JudgeTemplate

    [message] = JudgeTemplate.load("mm-rlhf").messages(row.prompt, [response])
    question = "".join(part for part in message.content if isinstance(part, str))
    assert question.endswith(
        f"[Question]: {row.prompt[0].text}\n[LMM Response]: {response}\n\n[Evaluation]:\n"
    )
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    return f"{text}{critique}<|im_end|>\n" if critique else text


class PlainCritic:
    """MM-RLHF-Reward in transformers' own class, with the head that its authors have.

    Args:
        directory: The checkpoint.
        model: The same weights in transformers' class.
        critic: The imported model, for its tokenizer and pixels alone.
    """

    def __init__(
        self, directory: Path, model: LlavaOnevisionForConditionalGeneration, critic: RewardModel
    ) -> None:
        self.model, self.backbone = model, critic.backbone
        tensors: dict[str, Tensor] = {}
        for path in directory.glob("*.safetensors"):
            tensors |= load_file(path)
        self.head = {name: value for name, value in tensors.items() if name.startswith("rm_head.")}

    def inputs(self, row: Comparison, response: str, critique: str = "") -> dict[str, Any]:
        """Return the arguments of transformers' forward."""
        tree = self.backbone.encode(row)
        image = self.backbone.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id)
        given: dict[str, Any] = {}
        tokens = ""
        if row.images:
            tokens = image * tree.prompt.count(self.model.config.image_token_id) + "\n"
            given = {"pixel_values": tree.media["pixel_values"][None]}
            given["image_sizes"] = tree.media["image_sizes"]
        text = critic_text(row, response, tokens, critique)
        ids = self.backbone.tokenizer(text, return_tensors="pt")["input_ids"]
        if row.images and self.backbone.tiling == "whole":
            # The authors' evaluation puts the projected patches of the whole image in the image's place.
            core = self.model.model
            embedded = core.get_input_embeddings()(ids)
            states = core.vision_tower(tree.media["pixel_values"], output_hidden_states=True).hidden_states
            embedded[ids == self.model.config.image_token_id] = core.multi_modal_projector(states[-1])[0]
            return {"inputs_embeds": embedded}
        return {"input_ids": ids, **given}

    @torch.no_grad()
    def reward(self, row: Comparison, response: str, critique: str) -> float:
        """Return the reward at the last token after a critique."""
        state = self.model.model(**self.inputs(row, response, critique)).last_hidden_state[0, -1]
        inner = torch.tanh(self.head["rm_head.dense.weight"] @ state + self.head["rm_head.dense.bias"])
        return float(self.head["rm_head.out_proj.weight"][0] @ inner + self.head["rm_head.out_proj.bias"])

    @torch.no_grad()
    def critique(self, row: Comparison, response: str, num_tokens: int) -> str:
        """Return what transformers writes: the likeliest tokens that are no control tokens."""
        end = self.backbone.tokenizer.convert_tokens_to_ids("<|im_end|>")
        inputs = self.inputs(row, response)
        written = self.model.generate(
            **inputs,
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
            suppress_tokens=[each for each in self.backbone.control_ids() if each != end],
        )[0]
        new = written[inputs["input_ids"].shape[1] :] if "input_ids" in inputs else written
        return self.backbone.text(new.tolist())


@pytest.mark.parametrize("tiling", ["anyres", "whole"])
def test_mm_rlhf_reward_is_a_critic_with_its_head(
    tiling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "MM-RLHF-Reward-7B-llava-ov-qwen"
    model = original_checkpoints.mm_rlhf_reward(source)
    command = ["import", str(source), "--critic", "mm-rlhf", "--set", "max_critique_tokens=5"]
    assert main([*command, "--option", f"tiling={tiling}", "--output", str(tmp_path / "critic")]) == 0, (
        capsys.readouterr().err
    )
    assert "with the head of MM-RLHF" in capsys.readouterr().out
    critic = RewardModel.load(tmp_path / "critic")
    assert critic.components["paradigm"]["name"] == "critic"
    # The tokens that stand for images are the tokenizer's next, which the class has as constants.
    model.config.image_token_id = critic.backbone.model.config.image_token_id
    plain = PlainCritic(source, model, critic)
    for row in (ROW, ROW.replace(prompt="what is it?")):
        written = critic.paradigm.critiques(row)
        assert written == [plain.critique(row, response, 5) for response in row.responses]
        given = row.replace(meta={"critiques": ["it is right", "the dog is no cat"]})
        expected = [
            plain.reward(row, response, critique)
            for response, critique in zip(row.responses, given.meta["critiques"], strict=True)
        ]
        assert abs(expected[0] - expected[1]) > 100 * TINY_REWARD
        assert critic.score([given])[0] == pytest.approx(expected, abs=TINY_REWARD)
        # Critiques of its own are read in the same way.
        own = row.replace(meta={"critiques": written})
        assert critic.score([own])[0] == pytest.approx(
            [plain.reward(row, *pair) for pair in zip(row.responses, written, strict=True)], abs=TINY_REWARD
        )


def test_mm_rlhf_reward_can_be_read_without_critiques(tmp_path: Path) -> None:
    source = tmp_path / "MM-RLHF-Reward-7B-llava-ov-qwen"
    original_checkpoints.mm_rlhf_reward(source)
    model, layout = import_model(source, tmp_path / "mine")
    assert (layout.title, model.components["paradigm"]["name"]) == ("MM-RLHF", "scalar")


def changed(source: Path, file: str, **values: Any) -> None:
    path = source / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'; transformers' LLaVA-OneVision has"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio is 'pad'; transformers has anyres_max_9"),
        ({"vocab_size": 320}, "the embedding has 320 rows, and the tokens of images and videos would be 323"),
    ],
)
def test_a_llava_of_other_settings_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    original_checkpoints.mm_rlhf_reward(tmp_path)
    changed(tmp_path, "config.json", **values)
    with pytest.raises(ModelError, match=message):
        rewrite_checkpoint(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "first", "last", "number"),
    [
        (None, [384, 384], [2304, 2304], 36),
        ("(1x1),...,(2x3)", [384, 384], [1152, 768], 6),
        ([[384, 768], [768, 384]], [768, 384], [384, 768], 2),
        ("[(384, 768), (768, 384)]", [768, 384], [384, 768], 2),
    ],
)
def test_resolutions_are_read_in_each_of_their_forms(
    given: object, first: list[int], last: list[int], number: int, tmp_path: Path
) -> None:
    original_checkpoints.mm_rlhf_reward(tmp_path / "source")
    changed(tmp_path / "source", "config.json", image_grid_pinpoints=given)
    rewrite_checkpoint(tmp_path / "source", tmp_path / "out")
    points = json.loads((tmp_path / "out" / "config.json").read_text())["image_grid_pinpoints"]
    assert (points[0], points[-1], len(points)) == (first, last, number)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"ps_version": "v1"}, ModelError, "ps_version is 'v1'; transformers has 'v2' only"),
        ({"force_image_size": 112}, ModelError, "force_image_size is 112, the tower's image_size 56"),
        (
            {"llm_config": {"model_type": "phi3"}},
            ConfigError,
            "the language model is a 'phi3'; rewritten are",
        ),
    ],
)
def test_an_internvl_of_other_settings_is_refused(
    values: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    original_checkpoints.internvl_chat(tmp_path)
    changed(tmp_path, "config.json", **values)
    with pytest.raises(error, match=message):
        rewrite_checkpoint(tmp_path, tmp_path / "out")


def test_a_tokenizer_in_code_is_told_where_another_is_had(tmp_path: Path) -> None:
    original_checkpoints.internvl_chat(tmp_path, "internlm2")
    auto_map = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    changed(tmp_path, "tokenizer_config.json", auto_map=auto_map, tokenizer_class="InternLM2Tokenizer")
    with pytest.raises(ConfigError, match="put the tokenizer.json, tokenizer_config.json and special_tokens"):
        rewrite_checkpoint(tmp_path, tmp_path / "out")
    tiny.tokenizer().save_pretrained(tmp_path / "other")
    words = tiny.tokenizer()
    words.add_special_tokens(
        {"additional_special_tokens": [*tiny.SPECIAL[1:], *original_checkpoints.INTERNVL_TOKENS]}
    )
    words.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    rewrite_checkpoint(tmp_path, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<IMG_CONTEXT>") == 325


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "internlm2", "auto_map": {"AutoModel": "modeling_xcomposer2.XComposer2ForReward"}},
            "is a model of InternLM-XComposer2.5 (IXC-2.5-Reward). transformers has no such architecture",
        ),
        (
            {"model_type": "internlm2", "architectures": ["InternLM2ForRewardModel"]},
            "is a model of InternLM2-Reward. transformers has no InternLM2",
        ),
    ],
)
def test_what_transformers_has_not_is_named(
    config: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["import", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_ways_to_import_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["import", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*command, "--plain", "--judge", "reasoned"]) == 2
    assert "--judge and --plain exclude each other; give one" in capsys.readouterr().err
    assert main([*command, "--plain", "--base", "x", "--option", "dtype=bfloat16"]) == 2
    assert "--plain writes a model as it is; leave out --base, --set, --option" in capsys.readouterr().err
    tiny.save_causal_lm(tmp_path)
    assert main([*command, "--plain"]) == 2
    assert "rewritten are models of the types internvl_chat, llava_qwen" in capsys.readouterr().err
