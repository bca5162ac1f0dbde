"""Tiny random models of each tested architecture, written to disk as their hub would hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

TEXT = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    # Five times the usual: a model this narrow would otherwise answer everything alike.
    "initializer_range": 0.1,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
    "initializer_range": 0.1,
}
"""16 patches a tile."""
SQUARE = {"height": 28, "width": 28}
TILES = [[28, 56], [56, 28], [56, 56]]

IMAGES_FIRST = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
)
IN_ORDER = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)


def tokenizer(*special: str, template: str | None = None, begins: bool = False, **names: str) -> Any:
    """Return a tokenizer of bytes with some control tokens.

    Args:
        special: Control tokens besides its own.
        template: The chat template.
        begins: Whether it puts a token before each text, as Llama's do.
        names: What the model calls tokens, such as `image_token`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    words = hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=names or None,
        chat_template=template,
    )
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *special]})
    if begins:
        words.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", words.bos_token_id)]
        )
    return words


def _save(directory: Path, words: Any, processor: Any, model: Any, **settings: Any) -> None:
    """Write a model as `AutoModelForImageTextToText` has it, its head included."""
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    processor.save_pretrained(directory)
    if settings:
        (directory / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def llava(directory: Path) -> None:
    words = tokenizer("<image>", template=IMAGES_FIRST, begins=True)
    config = hf.LlavaConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE)
    settings = {
        "patch_size": 7,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    _save(directory, words, processor, hf.LlavaForConditionalGeneration(config), **settings)


def llava_next(directory: Path) -> None:
    words = tokenizer("<image>", template=IMAGES_FIRST, begins=True)
    config = hf.LlavaNextConfig(
        text_config={**TEXT, "model_type": "mistral", "sliding_window": None},
        vision_config={**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=TILES,
    )
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=SQUARE, image_grid_pinpoints=TILES
    )
    settings = {
        "patch_size": 7,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    _save(directory, words, processor, hf.LlavaNextForConditionalGeneration(config), **settings)


def llava_onevision(directory: Path) -> None:
    words = tokenizer("<image>", "<video>", template=IN_ORDER.replace("IMAGE", "<image>"))
    config = hf.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=TILES,
    )
    processor = LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=TILES)
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    _save(directory, words, processor, hf.LlavaOnevisionForConditionalGeneration(config), **settings)


def internvl(directory: Path) -> None:
    words = tokenizer(
        template=IN_ORDER.replace("IMAGE", "<IMG_CONTEXT>\n"),
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = hf.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config={**VISION, "layer_scale_init_value": 1.0},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = GotOcr2ImageProcessorPil(size=SQUARE, max_patches=4)
    _save(directory, words, processor, hf.InternVLForConditionalGeneration(config), image_seq_length=4)


def _idefics(directory: Path, kind: str, processor: Any) -> None:
    tags = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    words = tokenizer(*marks, *tags, template=IN_ORDER.replace("IMAGE", "<image>"))
    config = getattr(hf, f"{kind}Config")(
        text_config={**TEXT, "model_type": "llama"},
        vision_config=VISION,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    model = getattr(hf, f"{kind}ForConditionalGeneration")(config)
    _save(directory, words, processor, model, image_seq_len=4)


def idefics3(directory: Path) -> None:
    sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
    _idefics(directory, "Idefics3", Idefics3ImageProcessorPil(**sizes))


def smolvlm(directory: Path) -> None:
    sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
    _idefics(directory, "SmolVLM", SmolVLMImageProcessorPil(**sizes))


def gemma3(directory: Path) -> None:
    words = tokenizer(
        template=IN_ORDER.replace("IMAGE", "<start_of_image>"),
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    config = hf.Gemma3Config(
        text_config={**TEXT, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        mm_tokens_per_image=4,
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    # Zero at first, which would hide every image.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    _save(directory, words, Gemma3ImageProcessorPil(size=SQUARE), model, image_seq_length=4)


def paligemma(directory: Path) -> None:
    words = tokenizer("<image>")
    config = hf.PaliGemmaConfig(
        text_config={**TEXT, "model_type": "gemma"},
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": 32},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    processor = SiglipImageProcessorPil(size=SQUARE)
    processor.image_seq_length = 16
    _save(directory, words, processor, hf.PaliGemmaForConditionalGeneration(config))


def qwen2_5_vl(directory: Path) -> None:
    template = IN_ORDER.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*marks, template=template)
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    config = hf.Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.1,
        },
        **dict(zip(names, words.convert_tokens_to_ids(list(marks)), strict=True)),
    )
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16})
    _save(directory, words, processor, hf.Qwen2_5_VLForConditionalGeneration(config))


MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        llava,
        llava_next,
        llava_onevision,
        internvl,
        idefics3,
        smolvlm,
        gemma3,
        paligemma,
        qwen2_5_vl,
    )
}


def save(directory: Path, kind: str) -> Path:
    """Write a tiny random model of an architecture, named by its model type."""
    torch.manual_seed(0)
    directory.mkdir(parents=True, exist_ok=True)
    MAKERS[kind](directory)
    return directory
