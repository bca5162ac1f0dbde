"""A head of several layers as modules of sentence-transformers, which vLLM applies to an embedding.

The embedding then has one number, the reward. vLLM reads them since 0.33 from `modules.json`, without code of
ours (`vllm.model_executor.models.adapters`, `_load_st_projector`), and computes them in fp32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

ACTIVATIONS = {
    "relu": "torch.nn.modules.activation.ReLU",
    "silu": "torch.nn.modules.activation.SiLU",
    "tanh": "torch.nn.modules.activation.Tanh",
}
"""The activations of `heads.MLP` by their classes' names; after the last layer there is none."""

IDENTITY = "torch.nn.modules.linear.Identity"


def write_dense_modules(place: Path, head: Any) -> None:
    """Write a head's layers beside a model, read at a text's last token and not normalized.

    Args:
        place: The directory of the model.
        head: A `heads.MLP`.
    """
    width = head.layers[0].in_features
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(place / "1_Pooling", {"word_embedding_dimension": width, "pooling_mode_lasttoken": True})
    for number, layer in enumerate(head.layers):
        is_last = number == len(head.layers) - 1
        folder = f"{number + 2}_Dense"
        config = {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "bias": True,
            "activation_function": IDENTITY if is_last else ACTIVATIONS[head.activation_name],
        }
        _write(place / folder, config)
        tensors = {f"linear.{name}": value.detach().float() for name, value in layer.state_dict().items()}
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            place / folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        modules.append((folder, "Dense"))
    table = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    (place / "modules.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _write(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
