"""A decoder of bytes with random weights: small, quick, without files, for tests and documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from basereward.backbones.base import Backbone
from basereward.backbones.lm_head import LanguageHead
from basereward.comparison import Comparison
from basereward.errors import DataError, ModelError
from basereward.forest.forest import Forest, Tree
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.message import ROLES

FILE = "model.safetensors"
PAD, IMAGE, END = 256, 257, 258
"""Token ids after those of the 256 bytes; the roles' follow."""
ROLE = {role: END + 1 + number for number, role in enumerate(ROLES)}
GRID, PATCH = 3, 8
"""An image becomes GRID x GRID patches of PATCH x PATCH pixels."""


class Tiny(Backbone):
    """A small untrained decoder of bytes and patches, to try out components without a download.

    Args:
        model: A directory that `save` wrote; None for random weights.
        dim: Width D of the hidden states, a multiple of 4 * `num_heads`.
        num_layers: Decoder layers.
        num_heads: Attention heads of each.
    """

    pad = PAD

    def __init__(
        self, *, model: str | None = None, dim: int = 32, num_layers: int = 2, num_heads: int = 2
    ) -> None:
        super().__init__()
        if dim < 1 or dim % (4 * num_heads):
            raise ValueError(f"dim is a multiple of 4 * num_heads, which is {4 * num_heads}; not {dim}")
        self.dim = dim
        self.vision = nn.Linear(3 * PATCH**2, dim)
        self.projector = nn.Linear(dim, dim)
        self.language = Decoder(dim, num_layers, num_heads)
        if model is not None:
            path = Path(model) / FILE
            try:
                self.load_state_dict(load_file(path), strict=True)
            except (OSError, RuntimeError, SafetensorError) as error:
                raise ModelError(f"{path}: {' '.join(str(error).split())}") from error

    def encode(self, comparison: Comparison) -> Tree:
        """Turn texts into bytes and images into patches."""
        prompt: list[int] = []
        patches = []
        for message in comparison.prompt:
            if message.given:
                raise DataError(f"the model doesn't read {message.given_names} of a message", field="prompt")
            prompt.append(ROLE[message.role])
            for part in message.content:
                if isinstance(part, Video):
                    raise DataError("the model reads no videos; take them out of the row", field="videos")
                if isinstance(part, Image):
                    prompt += [IMAGE] * GRID**2
                    patches.append(_patches(part))
                else:
                    prompt += _bytes(part, "prompt")
            prompt.append(END)
        prompt.append(ROLE["assistant"])
        responses = [
            [*_bytes(response, f"responses[{number}]"), END]
            for number, response in enumerate(comparison.responses)
        ]
        media = {"patches": torch.cat(patches)} if patches else {}
        return replace(Tree.of_text(prompt, responses), media=media)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        embedded: Tensor = self.language.embedding(forest.input_ids)
        if "patches" in forest.media:
            soft = self.projector(functional.silu(self.vision(forest.media["patches"])))
            embedded = embedded.masked_scatter(
                (forest.input_ids == IMAGE)[..., None], soft.to(embedded.dtype)
            )
        elif self.always_runs_vision:
            nothing = embedded.new_zeros(1, 3 * PATCH**2)
            embedded = embedded + 0.0 * self.projector(functional.silu(self.vision(nothing))).sum()
        hidden: Tensor = self.language(embedded, forest)
        return hidden

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the patches' embedding, the projector, and the decoder."""
        return {"vision": self.vision, "projector": self.projector, "language": self.language}

    def language_head(self) -> LanguageHead:
        """Return a head with random weights of its own."""
        embedding = self.language.embedding
        return LanguageHead(embedding, torch.randn_like(embedding.weight, requires_grad=False))

    def control_ids(self) -> list[int]:
        """Return all tokens but the bytes."""
        return list(range(PAD, self.language.embedding.num_embeddings))

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of bytes; those that are no character come out as replacement characters."""
        return bytes(number for number in ids if number < PAD).decode(errors="replace")

    def save(self, directory: Path) -> None:
        """Write the weights."""
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, Path(directory) / FILE, metadata={"format": "pt"})


class Decoder(nn.Module):
    """Layers of attention by the forest's rule and of MLPs."""

    def __init__(self, dim: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ROLE) + END + 1, dim)
        self.layers = nn.ModuleList(Layer(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.RMSNorm(dim)

    def forward(self, states: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [B, L, D]
        """Return the last states, normed."""
        half = states.shape[-1] // 2
        places = torch.arange(half, device=states.device)
        angles = forest.positions[0][..., None] * torch.exp(-math.log(1e4) * places / half)  # [B, L, D / 2]
        states = states + torch.cat([angles.sin(), angles.cos()], -1)
        visible = forest.visible()
        for layer in self.layers:
            states = layer(states, visible)
        normed: Tensor = self.norm(states)
        return normed


class Layer(nn.Module):
    """Attention and an MLP, each with a residual connection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleDict({"attention": nn.RMSNorm(dim), "perceptron": nn.RMSNorm(dim)})
        self.into = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.perceptron = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(
        self,
        states: Tensor,  # [B, L, D]
        visible: Tensor,  # [B, 1, L, L]
    ) -> Tensor:
        """Return the states after this layer."""
        parts: Any = self.into(self.norms["attention"](states)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.transpose(1, 3).unbind(2)  # [B, heads, L, D / heads]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        states = states + self.out(attended.transpose(1, 2).flatten(2))
        output: Tensor = states + self.perceptron(self.norms["perceptron"](states))
        return output


def _bytes(text: str, field: str) -> list[int]:
    try:
        return list(text.encode())
    except UnicodeEncodeError:
        raise DataError("holds a lone surrogate, which is no character; remove it", field=field) from None


def _patches(image: Image) -> Tensor:  # [GRID ** 2, 3 * PATCH ** 2]
    side = GRID * PATCH
    pixels = torch.from_numpy(numpy.array(image.open().resize((side, side)))).float() / 127.5 - 1
    patches = pixels.unflatten(1, (GRID, PATCH))
    return torch.unflatten(patches, 0, (GRID, PATCH)).transpose(1, 2).flatten(2).flatten(0, 1)
