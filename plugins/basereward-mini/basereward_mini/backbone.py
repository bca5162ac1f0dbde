"""A small vision-language model: EfficientNet-Lite0's grid, a projector, and the first layers of SmolLM2."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
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
from basereward_mini import assets, smollm2

SMOLLM2 = "smollm2-135m"
VISION_FILE = "vision.safetensors"
CHANNELS = 1280
MEAN, STD = 0.5, 0.5
"""EfficientNet-Lite's own normalization, of pixels in 0 to 1."""


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
        self.vision = _new_encoder()
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
        if model == SMOLLM2:
            state = torch.load(assets.EFFICIENTNET.find(), map_location="cpu", weights_only=True)
            self.vision.load_state_dict(state, strict=True)
        else:
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
        features = [
            torch.stack([self._view(image, number) for number in range(num_views)])
            for image in comparison.images
        ]
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
            views = forest.media["features"]  # [images, views, grid * grid, channels]
            chosen = torch.zeros(len(views), dtype=torch.long)
            if self.training and self.num_views > 1:
                chosen = torch.randint(self.num_views, (len(views),))
            features = views[torch.arange(len(views)), chosen].float()
            soft = self.projector(self.feature_dropout(features)).flatten(0, 1).to(embedded.dtype)
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
        """Cache the views of images on disk, too; they are always computed in bf16."""
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

    def _view(self, image: Image, number: int) -> Tensor:  # [grid * grid, channels]
        """Return the pooled grid of one view of an image.

        Each is computed alone, whatever it arrives with, since in bf16 a convolution's last digits could
        depend on the size of its batch.
        """
        device = next(self.vision.parameters()).device
        key = key_of(
            "mini-vlm view",
            *(self.encoder_digest, self.image_side, self.grid, image.digest, number, device.type),
        )
        features = MEMORY_CACHE.get(key)
        if features is None and self._cache is not None and (entry := self._cache.get(key)) is not None:
            features = entry["view"]
            MEMORY_CACHE.put(key, features)
        if features is None:
            pixels = numpy.array(image.open().resize((self.image_side, self.image_side)))
            scaled = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - MEAN) / STD
            view = VIEWS[number](scaled).bfloat16().to(memory_format=torch.channels_last)
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                grid = self.vision.extract_features(view.to(device))  # [1, channels, height, width]
                pooled = nn.functional.adaptive_avg_pool2d(grid.float(), self.grid)
            features = pooled[0].flatten(1).T.bfloat16().cpu()
            MEMORY_CACHE.put(key, features)
        if self._cache is not None:
            self._cache.put(key, {"view": features})
        return features


class LRUCache:
    """The features used last, of all models of the process: evaluation reads those that training computed.

    Args:
        capacity: Views, of 23 kB each for a grid of 3 x 3.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Tensor | None:
        """Return an entry, which makes it the latest."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, value: Tensor) -> None:
        """Add an entry, and evict the least recently used one if there are too many."""
        with self._lock:
            self._entries[key] = value
            if len(self._entries) > self.capacity:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()


MEMORY_CACHE = LRUCache(8192)


def _same(pixels: Tensor) -> Tensor:
    return pixels


def _mirrored(pixels: Tensor) -> Tensor:
    return pixels.flip(-1)


def _shifted(pixels: Tensor) -> Tensor:
    return pixels.roll((pixels.shape[-2] // 16, -(pixels.shape[-1] // 12)), (-2, -1))


def _enlarged(pixels: Tensor) -> Tensor:
    edge = pixels.shape[-1] // 10
    inner = pixels[..., edge:-edge, edge:-edge]
    return nn.functional.interpolate(inner, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


VIEWS = (_same, _enlarged, _shifted, _mirrored)


def _new_encoder() -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    # In bf16 with channels last an image takes a quarter of the time; the encoder is never trained, and so
    # neither are the statistics of its batch norms.
    encoder = EfficientNet.from_name("efficientnet-lite0").eval()
    return encoder.bfloat16().to(memory_format=torch.channels_last)


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
