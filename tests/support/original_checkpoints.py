"""Tiny random checkpoints in the layouts in which their authors publish them: names, configs, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

INTERNVL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>")


def write_slow_tokenizer(directory: Path, more: tuple[str, ...] = ()) -> None:
    """Write the tokenizer as Qwen2's first repositories have it: vocabulary and merges, no tokenizer.json."""
    words = tiny.tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())["model"]
    special = [*tiny.SPECIAL, *more]
    words.add_special_tokens({"additional_special_tokens": special[1:]})
    added = {words.convert_tokens_to_ids(token): token for token in special}
    plain = {token: number for token, number in state["vocab"].items() if number not in added}
    (directory / "vocab.json").write_text(json.dumps(plain), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(n): {"content": token, **flags} for n, token in sorted(added.items())},
        "additional_special_tokens": special[1:],
        "chat_template": "{{ raise_exception('of the language model, not of this one') }}",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    names = {token: number for number, token in added.items()}
    (directory / "added_tokens.json").write_text(json.dumps(names), encoding="utf-8")


def save_in_two(tensors: dict[str, Tensor], directory: Path) -> None:
    """Write tensors as two files with an index, in bf16's place fp32."""
    names = sorted(tensors)
    files = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, directory / file, {"format": "pt"})
        files |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def internvl_chat(directory: Path, language: str = "qwen2", *, has_norms: bool = False) -> dict[str, Tensor]:
    """Write an InternVL as OpenGVLab does, and return its tensors.

    Args:
        directory: The directory to write.
        language: The language model, `qwen2` or `internlm2`, whose projections are one matrix.
        has_norms: Whether the tower normalizes queries and keys, as that of 6B does.
    """
    kind = "internvl-llama" if language == "internlm2" else "internvl-qwen2"
    source = tiny.save_internvl(directory / "of-transformers", kind)
    config = AutoConfig.from_pretrained(source)
    text, vision = config.text_config, config.vision_config
    chance = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}
    for name, tensor in tiny_tensors(source).items():
        tensors[_internvl_name(name, language)] = tensor
    for prefix, letters in {("vision_model", "qkv"), ("language_model", "qkv")}:
        _join(tensors, prefix, letters, text, language)
    width = vision.hidden_size
    for number in range(vision.num_hidden_layers) if has_norms else ():
        for letter in "qk":
            name = f"vision_model.encoder.layers.{number}.attn.{letter}_norm.weight"
            tensors[name] = torch.rand(width, generator=chance) + 0.5
    head = "output" if language == "internlm2" else "lm_head"
    tensors[f"language_model.{head}.weight"] = torch.randn(
        text.vocab_size, text.hidden_size, generator=chance
    )
    save_in_two(tensors, directory)
    sizes = {
        key: getattr(text, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "pad_token_id",
        )
    }
    (directory / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["InternVLChatModel"],
                "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
                "downsample_ratio": 0.5,
                "dynamic_image_size": True,
                "force_image_size": 56,
                "llm_config": {
                    **sizes,
                    "_name_or_path": "./pretrained/Qwen2.5-32B-Instruct",
                    "architectures": ["Qwen2ForCausalLM"],
                    "attn_implementation": "flash_attention_2",
                    "bias": False,
                    "model_type": language,
                    "moe_config": None,
                    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
                    "rope_theta": 10000.0,
                    "tie_word_embeddings": False,
                    "top_k": 50,
                    "use_bfloat16": True,
                },
                "max_dynamic_patch": 6,
                "min_dynamic_patch": 1,
                "model_type": "internvl_chat",
                "pad2square": False,
                "ps_version": "v2",
                "select_layer": -1,
                "template": "internvl2_5",
                "torch_dtype": "bfloat16",
                "use_thumbnail": True,
                "vision_config": {
                    "architectures": ["InternVisionModel"],
                    "attention_dropout": 0.0,
                    "drop_path_rate": 0.0,
                    "hidden_act": "gelu",
                    "hidden_size": width,
                    "image_size": 56,
                    "initializer_factor": 1.0,
                    "intermediate_size": vision.intermediate_size,
                    "layer_norm_eps": 1e-6,
                    "model_type": "intern_vit_6b",
                    "norm_type": "layer_norm",
                    "num_attention_heads": vision.num_attention_heads,
                    "num_channels": 3,
                    "num_hidden_layers": vision.num_hidden_layers,
                    "patch_size": 14,
                    "qk_normalization": has_norms,
                    "qkv_bias": False,
                },
            }
        ),
        encoding="utf-8",
    )
    write_slow_tokenizer(directory, INTERNVL_TOKENS)
    (directory / "modeling_internvl_chat.py").write_text("raise SystemExit('this code is not run')\n")
    return tensors


def tiny_tensors(source: Path) -> dict[str, Tensor]:
    """Return the tensors of a tiny model, and take its directory away."""
    import shutil

    tensors = load_file(source / "model.safetensors")
    shutil.rmtree(source)
    return tensors


def _internvl_name(name: str, language: str) -> str:
    """Return the authors' name for one of transformers' names."""
    pairs = [
        (r"^vision_tower\.", "vision_model."),
        (r"encoder\.layer\.", "encoder.layers."),
        (r"\.cls_token", ".class_embedding"),
        (r"\.position_embeddings", ".position_embedding"),
        (r"\.patch_embeddings\.projection", ".patch_embedding"),
        (r"\.attention\.projection_layer", ".attn.proj"),
        (r"\.attention\.([qkv])_proj", r".attn.\1"),
        (r"\.layernorm_before", ".norm1"),
        (r"\.layernorm_after", ".norm2"),
        (r"\.lambda_", ".ls"),
        (r"^multi_modal_projector\.layer_norm", "mlp1.0"),
        (r"^multi_modal_projector\.linear_1", "mlp1.1"),
        (r"^multi_modal_projector\.linear_2", "mlp1.3"),
    ]
    if language == "internlm2":
        pairs += [
            (r"\.embed_tokens", ".tok_embeddings"),
            (r"\.self_attn\.o_proj", ".attention.wo"),
            (r"\.self_attn\.([qkv])_proj", r".attention.\1"),
            (r"(language_model.*)\.mlp\.gate_proj", r"\1.feed_forward.w1"),
            (r"(language_model.*)\.mlp\.down_proj", r"\1.feed_forward.w2"),
            (r"(language_model.*)\.mlp\.up_proj", r"\1.feed_forward.w3"),
            (r"\.input_layernorm", ".attention_norm"),
            (r"\.post_attention_layernorm", ".ffn_norm"),
        ]
    for pattern, new in pairs:
        name = re.sub(pattern, new, name)
    return name


def _join(tensors: dict[str, Tensor], prefix: str, letters: str, text: Any, language: str) -> None:
    """Join projections that the authors have as one matrix."""
    if prefix == "language_model" and language != "internlm2":
        return
    middle = "attn" if prefix == "vision_model" else "attention"
    firsts = [name for name in tensors if name.startswith(prefix) and f".{middle}.q." in name]
    for name in firsts:
        parts = [tensors.pop(name.replace(f".{middle}.q.", f".{middle}.{letter}.")) for letter in letters]
        if prefix == "vision_model":
            tensors[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
            continue
        # For each head of keys: the heads of queries that share it, it, and its head of values.
        dim = text.hidden_size // text.num_attention_heads
        heads = [part.unflatten(0, (text.num_key_value_heads, -1, dim)) for part in parts]
        tensors[name.replace(".attention.q.", ".attention.wqkv.")] = torch.cat(heads, 1).flatten(0, 2)


def mm_rlhf_reward(directory: Path) -> LlavaOnevisionForConditionalGeneration:
    """Write a critic as MM-RLHF-Reward is published, and return the model in transformers' class; its head
    is in the files.

    Its tower has the sizes that the authors' code fixes: tiles of 384 x 384 pixels, 16 heads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    points = [[384, 384], [384, 768], [768, 384], [768, 768]]
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 16, "intermediate_size": 24, "image_size": 384, "patch_size": 96}
    text = tiny.text_config(model_type="qwen2", rms_norm_eps=1e-6, tie_word_embeddings=False)
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            text_config=text,
            vision_config={**vision, "vision_use_head": False, "initializer_range": 0.1},
            image_grid_pinpoints=points,
            tie_word_embeddings=False,
        )
    ).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 1)
    names = {
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "model.image_newline": "model.image_newline",
        "model.language_model.": "model.",
        "lm_head.": "lm_head.",
    }
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        old = next(old for old in names if name.startswith(old))
        tensors[names[old] + name.removeprefix(old)] = value.clone()
    chance = torch.Generator().manual_seed(2)
    width = int(str(text["hidden_size"]))
    for name, shape in {
        "rm_head.dense.weight": (width, width),
        "rm_head.dense.bias": (width,),
        "rm_head.out_proj.weight": (1, width),
        "rm_head.out_proj.bias": (1,),
    }.items():
        tensors[name] = 0.3 * torch.randn(shape, generator=chance)
    save_in_two(tensors, directory)
    (directory / "config.json").write_text(
        json.dumps(
            {
                **text,
                "architectures": ["LlavaQwenForCausalLM"],
                "attention_dropout": 0.0,
                "image_aspect_ratio": "anyres_max_9",
                "image_grid_pinpoints": [point[::-1] for point in points],
                "is_rm": True,
                "mm_hidden_size": 1152,
                "mm_newline_position": "one_token",
                "mm_patch_merge_type": "spatial_unpad",
                "mm_projector_type": "mlp2x_gelu",
                "mm_spatial_pool_mode": "bilinear",
                "mm_vision_select_feature": "patch",
                "mm_vision_select_layer": -2,
                "mm_vision_tower": "google/siglip-so400m-patch14-384",
                "model_type": "llava_qwen",
                "rope_scaling": None,
                "rope_theta": 10000.0,
                "tokenizer_model_max_length": 32768,
                "use_mm_proj": True,
                "use_pos_skipping": False,
            }
        ),
        encoding="utf-8",
    )
    write_slow_tokenizer(directory)
    return model
