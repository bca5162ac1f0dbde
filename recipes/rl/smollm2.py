"""SmolLM2-135M-Instruct out of its package, as a policy that writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basereward_mini import smollm2

GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
"""The turn in which the model writes, which a reward model's template has no need of."""


def save_policy(directory: Path) -> Path:
    """Write the whole model with its language-model head, unless that is there; return the directory."""
    if not (directory / "config.json").is_file():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source = smollm2.directory(smollm2.NUM_LAYERS)
        model: Any = AutoModelForCausalLM.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        tokenizer.chat_template = smollm2.TEMPLATE + GENERATION
        tokenizer.save_pretrained(directory)
        model.save_pretrained(directory)
    return directory


def freeze(policy: Any, num_layers: int) -> None:
    """Leave the embedding, which is the head too, and the lowest layers of a policy as they are.

    That halves the time of the backward pass.
    """
    policy.get_input_embeddings().requires_grad_(False)
    for layer in policy.model.layers[:num_layers]:
        layer.requires_grad_(False)
