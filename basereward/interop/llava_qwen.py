"""LLaVA-OneVision as its authors publish it (`llava_qwen`), and so MM-RLHF-Reward, in transformers' form."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.backbones.untrusted_settings import reading
from basereward.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from basereward.interop.original_layouts import Rename

IMAGE_SIZE, NUM_HEADS = 384, 16
"""Of the vision tower, SigLIP-SO400M: the authors' code has these, and their config has them not."""

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that writes what the authors' conversation `qwen_1_5` does, images before the text."""

EXPECTED = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "one_token",
    "mm_spatial_pool_mode": "bilinear",
    "mm_resampler_type": None,
}
"""Settings that transformers' class has as constants."""

TOWER = "model.vision_tower.vision_tower.vision_model."
NAMES = (
    (TOWER, "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "image_newline"),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
"""Beginnings of names, the first that fits; heads of rewards keep theirs."""


def renaming(authors: Mapping[str, Any]) -> Rename:
    """Return the renaming of tensors."""

    def rename(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        old, new = next(((old, new) for old, new in NAMES if name.startswith(old)), ("", ""))
        yield new + name.removeprefix(old), tensor

    return rename


def config_of(source: Path, authors: Mapping[str, Any]) -> dict[str, Any]:
    """Return transformers' config.

    Raises:
        ModelError: When a setting is another than transformers' class has, or the tower is not to be found.
    """
    from transformers import Qwen2Config

    for key, wanted in EXPECTED.items():
        given = authors.get(key, wanted)
        if given != wanted:
            raise ModelError(f"{source}: {key} is {given!r}; transformers' LLaVA-OneVision has {wanted!r}")
    ratio = str(authors.get("image_aspect_ratio", "anyres_max_9"))
    if not re.fullmatch(r"anyres_max_\d+", ratio):
        raise ModelError(
            f"{source}: image_aspect_ratio is {ratio!r}; transformers has anyres_max_9 and the like"
        )
    names = {*Qwen2Config().to_dict(), "rope_theta", "rope_scaling"}
    left_out = {"auto_map", "architectures", "_name_or_path", "transformers_version", "model_type"}
    text = {key: value for key, value in authors.items() if key in names - left_out}
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "image_grid_pinpoints": _pinpoints(authors.get("image_grid_pinpoints")),
        "projector_hidden_act": "gelu",
        "text_config": {**text, "model_type": "qwen2"},
        "tie_word_embeddings": bool(authors.get("tie_word_embeddings", False)),
        "vision_aspect_ratio": ratio,
        "vision_config": _vision_config(source),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }


def _pinpoints(given: Any) -> list[list[int]]:
    """Return the resolutions that an image may have as (height, width); the authors have (width, height)."""
    if given is None:
        steps = range(1, 7)
        return [[height * IMAGE_SIZE, width * IMAGE_SIZE] for width in steps for height in steps]
    if isinstance(given, str) and "x" in given:  # "(1x1),...,(6x6)", in tiles
        sides = [int(number) for number in re.findall(r"\d+", given)]
        columns, rows = (range(sides[at], sides[at - 2] + 1) for at in (0, 1))
        return [[row * IMAGE_SIZE, column * IMAGE_SIZE] for column in columns for row in rows]
    pairs = ast.literal_eval(given) if isinstance(given, str) else given
    return [[int(height), int(width)] for width, height in pairs]


def _vision_config(source: Path) -> dict[str, Any]:
    """Return the tower's config by the shapes of its weights."""
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    opened: Any
    for path in sorted(source.glob("*.safetensors")):
        with reading(path), safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                if name.startswith(TOWER):
                    shapes[name.removeprefix(TOWER)] = opened.get_slice(name).get_shape()
    embedding, first = "embeddings.patch_embedding.weight", "encoder.layers.0.mlp.fc1.weight"
    if embedding not in shapes or first not in shapes:
        raise ModelError(
            f"{source} has no vision tower among its weights ({TOWER}{embedding}); merge it into them"
        )
    width, channels, patch, _ = shapes[embedding]
    return {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": width,
        "image_size": IMAGE_SIZE,
        "intermediate_size": shapes[first][0],
        "num_attention_heads": NUM_HEADS,
        "num_channels": channels,
        "num_hidden_layers": 1
        + max(int(match[1]) for name in shapes if (match := re.search(r"layers\.(\d+)\.", name))),
        "patch_size": patch,
        "vision_use_head": False,
    }


def finish(place: Path, authors: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Write the tokenizer with tokens for images and videos, their ids, and the image processor.

    Raises:
        ModelError: When the embedding has no rows for these tokens.
    """
    from transformers import AutoTokenizer
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    path = place / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    with reading(place, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
    tokenizer.add_tokens([IMAGE_TOKEN, VIDEO_TOKEN], special_tokens=True)
    image, video = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, VIDEO_TOKEN])
    rows = int(config["text_config"]["vocab_size"])
    if max(image, video) >= rows:
        raise ModelError(
            f"the embedding has {rows} rows, and the tokens of images and videos would be {image} and {video}"
        )
    config |= {"image_token_index": image, "video_token_index": video}
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(place)
    LlavaOnevisionImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_grid_pinpoints=config["image_grid_pinpoints"],
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(place)
