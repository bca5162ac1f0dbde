"""A small vision-language model: EfficientNet-Lite0's grid, a projector, and the first layers of SmolLM2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.feature_cache import FeatureCache, key_of
from basereward.backbones.quantization import Quantization
from basereward.comparison import Comparison
from basereward.errors import ConfigError, ModelError
from basereward.forest import Forest, Tree
from basereward.media import Image
from basereward_mini import smollm2
from basereward_mini.encoder import CHANNELS, VIEWS, ImageEncoder, views
from basereward_mini.lru_cache import LRUCache

SMOLLM2 = "smollm2-135m"
VISION_FILE = "vision.safetensors"


class MiniVLM(CausalLM):
    """Images as soft tokens in front of a small decoder: the shape of the large models, at a thousandth of
    them.

    The image encoder is frozen; the features of an image are computed once and cached. In training one of
    several views of each image is drawn.

    Args:
        model: `smollm2-135m` builds it of the installed packages; a directory loads a saved one.
        num_layers: Decoder layers to keep, when it is built.
        grid: Soft tokens along each side of an image.
        image_side: Pixels to which images are resized.
        num_views: Views of each image that training draws from: as it is, enlarged, shifted, mirrored.
        feature_dropout: Share of an image's features that training drops.
        train_embeddings: Whether the tokens' embeddings are trained; frozen, words that training never sees
            stay where the decoder expects them.
    """

    def __init__(
        self,
        *,
        model: str = SMOLLM2,
        num_layers: int = 4,
        grid: int = 3,
        image_side: int = 160,
        num_views: int = 1,
        feature_dropout: float = 0.2,
        train_embeddings: bool = False,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
    ) -> None:
        if not 1 <= num_views <= len(VIEWS):
            raise ConfigError(f"num_views is {num_views}; allowed: 1 to {len(VIEWS)}")
        source = str(smollm2.directory(num_layers)) if model == SMOLLM2 else model
        super().__init__(model=source, max_tokens=max_tokens, on_long=on_long, attention=attention)
        self.vision = ImageEncoder.pretrained() if model == SMOLLM2 else ImageEncoder()
        self.projector = nn.Sequential(
            nn.LayerNorm(CHANNELS, elementwise_affine=False), nn.Linear(CHANNELS, self.dim)
        )
        self.feature_dropout = nn.Dropout(feature_dropout)
        # No text can hold the padding token, so it serves as the image token, too.
        self.image_token = self.pad
        self.grid = grid
        self.image_side = image_side
        self.num_views = num_views
        self._cache: FeatureCache | None = None
        if model != SMOLLM2:
            _load(self, Path(model) / VISION_FILE)
        # From the start, or reading images before `train` is called would move its running averages.
        self.vision.requires_grad_(False).eval()
        self.encoder_digest = _digest(self.vision)
        self.model.embed_tokens.requires_grad_(train_embeddings)

    @classmethod
    def of_model(cls, model: Any, *, quantize: Quantization | None = None) -> MiniVLM:
        """Refuse: the image encoder is no part of the model."""
        raise ConfigError("mini-vlm has an image encoder that its language model's config doesn't describe")

    def train(self, mode: bool = True) -> MiniVLM:
        """Switch to training or back; the image encoder, being frozen, stays in evaluation."""
        super().train(mode)
        self.vision.eval()
        return self

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens and the cached features of its images."""
        num_views = self.num_views if self.training else 1
        features = [self.views_of(image, num_views) for image in comparison.images]
        soft = [self.image_token] * self.grid**2
        prompt, responses, leads = self.chat.encoding(
            comparison.prompt, comparison.responses, [soft for _ in features]
        )
        media = {"features": torch.stack(features)} if features else {}
        return replace(Tree.of_text(prompt, self.cut(prompt, responses), leads), media=media)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        embedded = self.model.embed_tokens(forest.input_ids)  # [B, L, D]
        if "features" in forest.media:
            features = forest.media["features"]  # [images, views, grid * grid, channels]
            chosen = torch.zeros(len(features), dtype=torch.long)
            if self.training and self.num_views > 1:
                chosen = torch.randint(self.num_views, (len(features),))
            images = torch.arange(len(features))
            soft = self.projector(self.feature_dropout(features[images, chosen].float()))
            soft = soft.flatten(0, 1).to(embedded.dtype)
            places = (forest.input_ids == self.image_token) & (forest.branch == 0)
            embedded = embedded.masked_scatter(places[..., None], soft)
        elif self.always_runs_vision:
            nothing = torch.zeros(1, CHANNELS, device=embedded.device)
            embedded = embedded + 0.0 * self.projector(nothing).sum()
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model(inputs_embeds=embedded, position_ids=forest.positions[0], **arguments)
        )

    def parts(self) -> Mapping[str, nn.Module]:
        """Return image encoder, projector and decoder."""
        return {"vision": self.vision, "projector": self.projector, "language": self.model}

    def blocks(self) -> list[nn.Module]:
        """Return the decoder's layers; the image encoder runs ahead, whole."""
        return list(self.model.layers)

    def ahead(self) -> list[nn.Module]:
        """Return the image encoder."""
        return [self.vision]

    def settings(self) -> Mapping[str, Any]:
        """Return those of the image encoder."""
        return {"grid": self.grid, "image_side": self.image_side}

    def attach_feature_cache(self, cache: FeatureCache, precision: str) -> None:
        """Cache the views of images on disk, too; they are computed in the encoder's own dtype."""
        self._cache = cache

    def save(self, directory: Path) -> None:
        """Write decoder and tokenizer as transformers does, and image encoder and projector beside them."""
        super().save(directory)
        parts = {"vision": self.vision, "projector": self.projector}
        tensors = {
            f"{part}.{name}": value.contiguous()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }
        save_file(
            tensors, directory / VISION_FILE, metadata={"format": "pt", "parts": json.dumps(list(parts))}
        )

    def views_of(self, image: Image, num_views: int) -> Tensor:  # [views, grid * grid, channels]
        """Return the pooled grids of an image's first views.

        They are computed together and with no other image, since a convolution's last digits could depend on
        its batch.
        """
        device = next(self.vision.parameters()).device
        key = key_of(
            "mini-vlm views",
            *(self.encoder_digest, self.image_side, self.grid, image.digest, num_views, device.type),
        )
        features = MEMORY_CACHE.get(key)
        if features is None and self._cache is not None and (entry := self._cache.get(key)) is not None:
            features = entry["views"]
            MEMORY_CACHE.put(key, features)
        if features is None:
            pixels = torch.from_numpy(numpy.array(image.open().resize((self.image_side, self.image_side))))
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                features = self.vision(views(pixels, num_views).to(device), self.grid).to(KEPT).cpu()
            MEMORY_CACHE.put(key, features)
        if self._cache is not None:
            self._cache.put(key, {"views": features})
        return features


KEPT = torch.bfloat16
"""What features are rounded to once they are computed, which halves what is kept; no product is computed
in it. (Autocast on CPUs takes no fp16.)"""
MEMORY_CACHE = LRUCache(256 * 2**20)
"""Features of all models of the process, as evaluation reads those that training computed. A view takes
23 kB for a grid of 3 x 3."""


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()


def _load(backbone: MiniVLM, path: Path) -> None:
    tensors = load_file(path)
    for part in ("vision", "projector"):
        state = {
            name.removeprefix(f"{part}."): value
            for name, value in tensors.items()
            if name.startswith(f"{part}.")
        }
        try:
            backbone.get_submodule(part).load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ModelError(f"{path}: {error}") from error
