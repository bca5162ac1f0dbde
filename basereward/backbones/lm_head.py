"""Language-model heads: hidden states to logits, for paradigms that read or write text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from basereward.backbones.deferred_weights import weight_files
from basereward.backbones.transformers_model import loads_weights, source_arguments
from basereward.backbones.untrusted_settings import reading
from basereward.errors import ModelError
from basereward.storage.model_directory import CONFIG_FILE

NAMES = ("lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight")
"""Names of the head's weight in checkpoints."""


class LanguageHead(nn.Module):
    """A linear layer from hidden states to the logits of the vocabulary.

    Args:
        embedding: The embedding of tokens; its weight is the head's where the two are tied.
        weight: [V, D], the head's own weight; None where it's tied.
    """

    def __init__(self, embedding: nn.Module, weight: Tensor | None = None) -> None:
        super().__init__()
        # Not a child: the embedding is the backbone's, which trains and saves it.
        self._embedding = (embedding,)
        self.weight = None if weight is None else nn.Parameter(weight)

    def forward(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:  # [..., D] -> [..., V]
        """Return logits in fp32.

        Args:
            hidden: Hidden states after the last norm.
            tokens: [T] the tokens whose logits are returned; None for the whole vocabulary.
        """
        weight: Any = self._embedding[0].weight if self.weight is None else self.weight
        if tokens is not None:
            weight = weight.index_select(0, tokens)
        with torch.autocast(hidden.device.type, enabled=False):
            return functional.linear(hidden.to(weight.dtype), weight).float()


def language_head(source: str, model: Any) -> LanguageHead:
    """Return the language-model head of a transformers model that was loaded without one.

    Args:
        source: The directory or hub id it was loaded from.
        model: The bare model.

    Raises:
        ModelError: When its head is neither tied to its embedding nor among its files.
    """
    embedding = model.get_input_embeddings()
    config = model.config
    is_tied = getattr(
        config, "tie_word_embeddings", getattr(config.get_text_config(), "tie_word_embeddings", False)
    )
    if (Path(source) / CONFIG_FILE).is_file():
        if is_tied:
            return LanguageHead(embedding)
        # A model directory: its head's file has the weight. NaN until it is read from there.
        return LanguageHead(embedding, torch.full_like(embedding.weight, torch.nan, requires_grad=False))
    weight = _find(source)
    if weight is None:
        if is_tied:
            return LanguageHead(embedding)
        raise ModelError(f"{source} has no language-model head ({NAMES[0]}), so it can't write or judge text")
    if weight.shape != embedding.weight.shape:
        raise ModelError(
            f"{source}: the language-model head has the shape {list(weight.shape)}, "
            f"its embedding {list(embedding.weight.shape)}"
        )
    weight = weight.to(embedding.weight.dtype)
    if is_tied:
        if weight.is_meta or torch.equal(weight, embedding.weight.cpu()):
            return LanguageHead(embedding)
        # InternVL's published files have an untied head, and a config that leaves the tie to its default. The
        # saved config states it.
        config.tie_word_embeddings = False
    return LanguageHead(embedding, weight)


def _find(source: str) -> Tensor | None:
    opened: Any
    for path in weight_files(source_arguments(source)):
        with reading(source), safe_open(path, framework="pt") as opened:
            names = set(opened.keys())
            for name in NAMES:
                if name in names and not loads_weights():
                    return torch.empty(opened.get_slice(name).get_shape(), device="meta")
                if name in names:
                    return opened.get_tensor(name)  # type: ignore[no-any-return]
    return None
