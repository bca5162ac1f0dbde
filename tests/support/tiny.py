"""Tiny random models of the real architectures, written to disk as their hub would hold them."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    InternVLConfig,
    InternVLModel,
    LlamaConfig,
    LlamaModel,
    LlavaOnevisionConfig,
    LlavaOnevisionModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2Config,
    Qwen2Model,
    Qwen2VLConfig,
    Qwen2VLModel,
    Qwen3MoeConfig,
    Qwen3MoeModel,
    Qwen3VLConfig,
    Qwen3VLModel,
    Qwen3VLMoeConfig,
    Qwen3VLMoeModel,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from basereward.comparison import Comparison

VL_KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
LM_KINDS = ("llama", "qwen2", "qwen3_moe")
INTERNVL_KINDS = ("internvl-qwen2", "internvl-llama")

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "bird",
    "sits",
    "runs",
    "on",
    "under",
    "red",
    "blue",
    "green",
    "hat",
    "mat",
    "house",
    "what",
    "is",
    "shown",
    "in",
    "image",
    "it",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 400 tokens with Qwen's control tokens and chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=393, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([" ".join(WORDS), *(f" {word}" for word in WORDS)], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    wrapped.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return wrapped


def text_config(**more: object) -> dict[str, object]:
    """Return the sizes that all tiny decoders share."""
    sizes = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        # Five times the usual: a model this narrow would otherwise answer everything alike.
        "initializer_range": 0.1,
    }
    return {**sizes, **more}


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
"""The sizes of tiny mixtures of experts."""


def save_causal_lm(directory: Path, kind: str = "llama", seed: int = 0, **sizes: object) -> Path:
    """Write a tiny random decoder of the kind `llama`, `qwen2` or `qwen3_moe`."""
    torch.manual_seed(seed)
    config, model = {
        "llama": (LlamaConfig, LlamaModel),
        "qwen2": (Qwen2Config, Qwen2Model),
        "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeModel),
    }[kind]
    experts = EXPERTS if kind == "qwen3_moe" else {}
    model(config(**text_config(**{**experts, **sizes}))).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def save_qwen_vl(directory: Path, kind: str = "qwen2_5_vl", seed: int = 0, **sizes: int) -> Path:
    """Write a tiny random Qwen2-VL, Qwen2.5-VL, Qwen3-VL or its mixture of experts, with other sizes of its
    decoder if given.
    """
    torch.manual_seed(seed)
    words = tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision: dict[str, object] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    vision["initializer_range"] = 0.1
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        config, model = Qwen2VLConfig, Qwen2VLModel
    elif kind == "qwen2_5_vl":
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "window_size": 56}
        vision |= {"fullatt_block_indexes": [1]}
        config, model = Qwen2_5_VLConfig, Qwen2_5_VLModel
    else:
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32}
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        rope |= {"mrope_interleaved": True}
        config, model = {
            "qwen3_vl": (Qwen3VLConfig, Qwen3VLModel),
            "qwen3_vl_moe": (Qwen3VLMoeConfig, Qwen3VLMoeModel),
        }[kind]
    ids = {
        "vision_start_token_id": words.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": words.convert_tokens_to_ids("<|vision_end|>"),
        "image_token_id": words.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": words.convert_tokens_to_ids("<|video_pad|>"),
    }
    extra = {"qwen3_vl": {"head_dim": 8}, "qwen3_vl_moe": EXPERTS}.get(kind, {})
    if "hidden_size" in sizes:
        vision["hidden_size" if kind == "qwen2_vl" else "out_hidden_size"] = sizes["hidden_size"]
        rope["mrope_section"] = [2, 2, 4]
    text = text_config(rope_parameters=rope, **extra, **sizes)
    model(config(text_config=text, vision_config=vision, **ids)).save_pretrained(directory)
    words.save_pretrained(directory)
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    Qwen2VLImageProcessorPil(size=size, patch_size=14, merge_size=2).save_pretrained(directory)
    return directory


LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}<video>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the template of published LLaVA-OneVision writes: images and videos before the text."""

INTERNVL_TOKENS = ("<IMG_CONTEXT>", "<img>", "</img>", "<video>")
INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<IMG_CONTEXT>\n{% elif content['type'] == 'video' %}<video>\n"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the published models' template writes."""


def save_internvl(directory: Path, kind: str = "internvl-qwen2", seed: int = 0) -> Path:
    """Write a tiny random InternVL: tiles of 56 x 56 pixels, 16 patches, 4 tokens."""
    torch.manual_seed(seed)
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": [*SPECIAL[1:3], *INTERNVL_TOKENS]})
    words.chat_template = INTERNVL_TEMPLATE
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    # Published towers add a tenth of each layer at first; this one all, or images would look alike.
    vision |= {"image_size": 56, "patch_size": 14, "layer_scale_init_value": 1.0, "initializer_range": 0.1}
    config = InternVLConfig(
        text_config=text_config(model_type=kind.removeprefix("internvl-")),
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids(INTERNVL_TOKENS[0]),
        image_seq_length=4,
    )
    InternVLModel(config).save_pretrained(directory)
    words.save_pretrained(directory)
    GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=6).save_pretrained(directory)
    return directory


def save_llava_onevision(directory: Path, seed: int = 0) -> Path:
    """Write a tiny random LLaVA-OneVision: tiles of 56 x 56 pixels, 16 patches, 16 tokens."""
    torch.manual_seed(seed)
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": [*SPECIAL[1:3], "<image>", "<video>"]})
    words.chat_template = LLAVA_TEMPLATE
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "intermediate_size": 24, "image_size": 56, "patch_size": 14}
    image, video = words.convert_tokens_to_ids(["<image>", "<video>"])
    points = [[56 * height, 56 * width] for height in range(1, 4) for width in range(1, 4)]
    config = LlavaOnevisionConfig(
        text_config=text_config(model_type="qwen2"),
        vision_config={**vision, "vision_use_head": False, "initializer_range": 0.1},
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=points,
        vision_aspect_ratio="anyres_max_4",
        initializer_range=0.1,
    )
    LlavaOnevisionModel(config).save_pretrained(directory)
    words.save_pretrained(directory)
    LlavaOnevisionImageProcessorPil(
        size={"height": 56, "width": 56}, image_grid_pinpoints=points
    ).save_pretrained(directory)
    return directory


def image(width: int = 56, height: int = 56, seed: int = 0) -> Pillow.Image:
    """Return an image of coloured noise."""
    chance = random.Random(seed)
    return Pillow.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))


def sentence(seed: int, num_words: int) -> str:
    """Return words in a random order."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(num_words))


def comparisons(*, images: bool = True) -> list[Comparison]:
    """Return comparisons of every shape: no, one and two images, pairs and rankings, short and long
    responses.
    """
    counts = (
        ((), ((56, 56, 1),), ((84, 56, 2), (56, 112, 3)), ((140, 84, 4),)) if images else ((), (), (), ())
    )
    return [
        Comparison(
            sentence(number, 3 + 5 * number),
            [sentence(10 * number + offset, 1 + 3 * offset + number) for offset in range(2 + number % 3)],
            images=[image(*shape) for shape in shapes],
            ranks=list(range(2 + number % 3)),
            id=f"row-{number}",
        )
        for number, shapes in enumerate(counts)
    ]


def backbone_of(kind: str) -> str:
    """Return the name of the backbone for a kind of model."""
    return "internvl" if kind in INTERNVL_KINDS else "qwen-vl" if kind in VL_KINDS else "causal-lm"


def add_language_head(directory: Path, seed: int = 0) -> Path:
    """Write a random language-model head beside a saved model's weights, as published checkpoints have it."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    [embedding] = [value for name, value in tensors.items() if name.endswith("embed_tokens.weight")]
    head = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed))
    save_file({**tensors, "lm_head.weight": head}, path, metadata={"format": "pt"})
    return directory
