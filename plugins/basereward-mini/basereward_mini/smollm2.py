"""The first layers of SmolLM2-135M-Instruct, read out of its GGUF file into a transformers directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basereward.storage.atomic import replace_directory
from basereward_mini import assets

NUM_LAYERS = 30
VERSION = 2
"""Of what is written; another is written anew, beside what is there."""
NUM_HEADS, NUM_KEY_HEADS = 9, 3

# No system message, unlike the model's own template: the few layers kept here would read it for nothing.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
)

LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def directory(num_layers: int) -> Path:
    """Return a directory with the model's first layers, making it on the first call."""
    place = assets.cache_directory() / f"smollm2-135m-{num_layers}-{assets.SMOLLM2.sha256[:8]}-{VERSION}"
    if not (place / "config.json").is_file():
        with replace_directory(place, foreign_files=lambda directory: ()) as aside:
            _convert(assets.SMOLLM2.find(), aside, num_layers)
    return place


def _convert(source: Path, place: Path, num_layers: int) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaModel

    from basereward.backbones.transformers_model import save_model, transformers_bars

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=num_layers,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KEY_HEADS,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    model = LlamaModel(config)
    tensors = {name: torch.from_numpy(value) for name, value in _tensors(source, num_layers).items()}
    model.load_state_dict(tensors, strict=True)
    save_model(model, place)
    with transformers_bars():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(place)


def _tensors(source: Path, num_layers: int) -> dict[str, Any]:
    """Return the de-quantized tensors under the names that transformers gives them."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    wanted = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    for number in range(num_layers):
        for theirs, ours in LAYER_NAMES.items():
            wanted[f"blk.{number}.{theirs}.weight"] = f"layers.{number}.{ours}.weight"
    found = {}
    for tensor in GGUFReader(source).tensors:
        if tensor.name in wanted:
            value = dequantize(tensor.data, tensor.tensor_type)
            if ".attn_q." in tensor.name:
                value = _unpermute(value, NUM_HEADS)
            elif ".attn_k." in tensor.name:
                value = _unpermute(value, NUM_KEY_HEADS)
            found[wanted[tensor.name]] = value.copy()
    return found


def _unpermute(value: Any, num_heads: int) -> Any:  # [rows, columns]
    """Undo GGUF's order of rows, whose rotary pairs are neighbours instead of half a head apart."""
    rows, columns = value.shape
    return value.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
