"""Backbones: comparisons in, hidden states out.

Shapes: B rows, L tokens a row, D width of the hidden states.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from basereward import DataError
from basereward.backbones.base import Backbone
from basereward.forest import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from basereward import Comparison
    from basereward.forest import Forest

FILE = "model.safetensors"
PAD, END = 256, 257
"""Token ids after those of the 256 bytes."""


class Bag(Backbone):
    """A token's state is a perceptron of its embedding and the mean embedding of all tokens that it sees.

    Args:
        model: A directory that `save` wrote; None for random weights.
        dim: Width D of the hidden states.
    """

    pad = PAD

    def __init__(self, *, model: str | None = None, dim: int = 32) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(END + 1, dim)
        self.perceptron = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        if model is not None:
            load_model(self, Path(model) / FILE, strict=True)

    def encode(self, comparison: Comparison) -> Tree:
        """Turn texts into bytes; needs no weights, and runs in threads of the CPU."""
        if comparison.images or comparison.videos:
            raise DataError("the model reads text only; take the images out of the row", field="images")
        prompt = [token for message in comparison.prompt for token in (*_tokens(message.text, "prompt"), END)]
        # The end token is the response's last: a head reads the reward off it.
        responses = [[*_tokens(response, "responses"), END] for response in comparison.responses]
        return Tree.of_text(prompt, responses)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        embedded = self.embedding(forest.input_ids)  # [B, L, D]
        # What a token sees is the forest's rule: its prompt and its own response up to itself.
        seen = forest.visible()[:, 0].to(embedded.dtype)  # [B, L, L]
        mean = (seen / seen.sum(-1, keepdim=True)) @ embedded
        hidden: Tensor = self.perceptron(torch.cat([embedded, mean.to(embedded.dtype)], -1))
        return hidden

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what can be frozen or given a learning rate."""
        return {"language": nn.ModuleList([self.embedding, self.perceptron])}

    def save(self, directory: Path) -> None:
        """Write the weights; `model=directory` with the same options gives the same states."""
        save_model(self, str(Path(directory) / FILE))


def _tokens(text: str, field: str) -> list[int]:
    try:
        return list(text.encode())
    except UnicodeEncodeError:
        raise DataError("holds a lone surrogate, which is no character; remove it", field=field) from None
