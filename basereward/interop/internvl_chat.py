"""InternVL as OpenGVLab publishes it (`OpenGVLab/InternVL3-8B`): its names and config in transformers' form.

Shapes: D width, K heads of keys, G heads of queries to each of them, E width of a head.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from basereward.interop.original_layouts import Rename

IMAGE_TOKEN = "<IMG_CONTEXT>"

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that writes what that of the models in transformers' form (`-hf`) does: no system message."""

VISION_KEYS = {
    "attention_dropout": "attention_dropout",
    "hidden_act": "hidden_act",
    "hidden_size": "hidden_size",
    "image_size": "image_size",
    "intermediate_size": "intermediate_size",
    "layer_norm_eps": "layer_norm_eps",
    "norm_type": "norm_type",
    "num_attention_heads": "num_attention_heads",
    "num_channels": "num_channels",
    "num_hidden_layers": "num_hidden_layers",
    "patch_size": "patch_size",
    "qk_normalization": "use_qk_norm",
    "qkv_bias": "attention_bias",
}
"""Keys of the tower's config, and transformers' for them."""

TEXT_TYPES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "internlm2": "llama"}
"""Types of language models, and transformers' for them. InternLM2 is Llama with its projections in one."""

VISION_NAMES = (
    ("class_embedding", "cls_token"),
    ("position_embedding", "position_embeddings"),
    ("patch_embedding.", "patch_embeddings.projection."),
    (".layers.", ".layer."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.", ".attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
)

PROJECTOR_NAMES = {"mlp1.0.": "layer_norm.", "mlp1.1.": "linear_1.", "mlp1.3.": "linear_2."}

INTERNLM_NAMES = (
    ("tok_embeddings.", "embed_tokens."),
    (".attention.wo.", ".self_attn.o_proj."),
    (".feed_forward.w1.", ".mlp.gate_proj."),
    (".feed_forward.w2.", ".mlp.down_proj."),
    (".feed_forward.w3.", ".mlp.up_proj."),
    (".attention_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
    ("language_model.output.", "language_model.lm_head."),
)


def config_of(source: Path, authors: Mapping[str, Any]) -> dict[str, Any]:
    """Return transformers' config.

    Raises:
        ConfigError: When the language model is of a type that is not rewritten.
        ModelError: When the image is read in another way than transformers' class reads it.
    """
    vision, text = authors["vision_config"], authors["llm_config"]
    kind = text.get("model_type")
    if kind not in TEXT_TYPES:
        raise ConfigError(
            f"{source}: the language model is a {kind!r}; rewritten are {', '.join(TEXT_TYPES)}. Use the "
            "model in transformers' form, published under a name that ends in -hf"
        )
    size = authors.get("force_image_size") or vision["image_size"]
    if size != vision["image_size"]:
        raise ModelError(
            f"{source}: force_image_size is {size}, the tower's image_size {vision['image_size']}; position "
            "embeddings are not resized here"
        )
    if authors.get("ps_version", "v1") != "v2":
        raise ModelError(f"{source}: ps_version is {authors.get('ps_version')!r}; transformers has 'v2' only")
    ratio = authors.get("downsample_ratio", 0.5)
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": ratio,
        "image_seq_length": int((size // vision["patch_size"]) ** 2 * ratio**2),
        "projector_hidden_act": "gelu",
        "text_config": _text_config(text, TEXT_TYPES[kind]),
        "tie_word_embeddings": bool(text.get("tie_word_embeddings", False)),
        "vision_config": {
            "model_type": "internvl_vision",
            **{new: vision[old] for old, new in VISION_KEYS.items() if old in vision},
        },
        "vision_feature_layer": authors.get("select_layer", -1),
        "vision_feature_select_strategy": "default",
    }


def _text_config(text: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the language model's config without what only old versions or other classes read."""
    from transformers import CONFIG_MAPPING

    names = {*CONFIG_MAPPING[kind]().to_dict(), "rope_theta", "rope_scaling"}
    left_out = {"auto_map", "architectures", "_name_or_path", "transformers_version"}
    kept = {key: value for key, value in text.items() if key in names - left_out}
    if text.get("model_type") == "internlm2":
        kept["attention_bias"] = bool(text.get("bias", False))
    return {**kept, "model_type": kind}


def renaming(authors: Mapping[str, Any]) -> Rename:
    """Return the renaming of tensors; heads keep their names."""
    text = authors["llm_config"]
    num_heads = text["num_attention_heads"]
    num_groups = num_heads // text.get("num_key_value_heads", num_heads)
    head_dim = text.get("head_dim") or text["hidden_size"] // num_heads

    def rename(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        if name.startswith("vision_model."):
            new = "vision_tower." + _replaced(name.removeprefix("vision_model."), VISION_NAMES)
            if ".attention.qkv." not in new:
                yield new, tensor
                return
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                yield new.replace(".qkv.", f".{letter}_proj."), part
        elif match := re.match(r"mlp1\.[013]\.", name):
            yield name.replace(match[0], f"multi_modal_projector.{PROJECTOR_NAMES[match[0]]}"), tensor
        elif ".attention.wqkv." in name:
            # [K (G + 2) E, D]: the heads of queries that share a key, that key, and its value.
            parts = tensor.unflatten(0, (-1, num_groups + 2, head_dim))
            for letter, part in zip("qkv", parts.split([num_groups, 1, 1], dim=1), strict=True):
                yield name.replace(".attention.wqkv.", f".self_attn.{letter}_proj."), part.flatten(0, 2)
        elif text.get("model_type") == "internlm2":
            yield _replaced(name, INTERNLM_NAMES), tensor
        else:
            yield name, tensor

    return rename


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def finish(place: Path, authors: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Write image processor and template, and the image token's id into the config.

    Raises:
        ConfigError: When the tokenizer is code beside the weights.
        ModelError: When it has no image token.
    """
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    from basereward.backbones.transformers_model import load_tokenizer

    path = place / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.pop("auto_map", None) is not None:
        if not (place / "tokenizer.json").is_file():
            raise ConfigError(
                "the tokenizer is code beside the weights, which is not run here; put the tokenizer.json, "
                "tokenizer_config.json and special_tokens_map.json of the same model in transformers' form "
                "(a name that ends in -hf) into the directory"
            )
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (place / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    side = config["vision_config"]["image_size"]
    GotOcr2ImageProcessorPil(
        size={"height": side, "width": side},
        crop_to_patches=True,
        max_patches=authors.get("max_dynamic_patch", 12),
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    ).save_pretrained(place)
    tokenizer = load_tokenizer(str(place))
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise ModelError(f"the tokenizer has no token {IMAGE_TOKEN}, by which images stand in texts")
    config["image_token_id"] = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
