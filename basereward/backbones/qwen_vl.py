"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL as backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basereward.backbones.base import Backbone, Limit
from basereward.backbones.pretrained import Decoder, load_model, load_tokenizer, source_arguments
from basereward.chat import Chat
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest import Forest, Tree

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


class QwenVL(Backbone):
    """A Qwen vision-language model without its language-model head.

    Args:
        model: A directory with model, tokenizer and image processor, or a hub id.
        dtype: Type of the weights.
        min_pixels: Pixels that a smaller picture is enlarged to; None keeps the processor's own bound.
        max_pixels: Pixels that a larger picture is reduced to; None keeps the processor's own bound.
        max_tokens: The longest that prompt (images included) and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` computes visible pairs of tokens only; `dense` is its reference.
    """

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
    ) -> None:
        super().__init__()
        self.model: Any = load_model(model, dtype=dtype)
        config = self.model.config
        if config.model_type not in MODEL_TYPES:
            raise ConfigError(
                f"{model} is a {config.model_type!r} model; qwen-vl reads {', '.join(MODEL_TYPES)}"
            )
        self.tokenizer = load_tokenizer(model)
        self.image_processor = _load_image_processor(model, min_pixels, max_pixels)
        self.chat = Chat(self.tokenizer)
        self.limit = Limit(max_tokens, on_long)
        self.decoder = Decoder(self.model, self.model.language_model, attention)
        self.dim = config.text_config.hidden_size
        self.pad = self.tokenizer.pad_token_id
        self.shares = self.decoder.shares
        self.template_digest = self.chat.digest
        self.merge = config.vision_config.spatial_merge_size

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens, patches, and positions on the three axes of M-RoPE."""
        config = self.model.config
        media = self._patches(comparison)
        grids: list[list[int]] = media["image_grid_thw"].tolist() if media else []
        sizes = [(frames, height // self.merge, width // self.merge) for frames, height, width in grids]
        image_ids = [
            [
                config.vision_start_token_id,
                *[config.image_token_id] * math.prod(size),
                config.vision_end_token_id,
            ]
            for size in sizes
        ]
        prompt, responses = self.chat.encode(comparison.prompt, comparison.responses, image_ids)
        positions, start = mrope_positions(prompt, config.image_token_id, sizes)
        fitted, num_cut = self.limit.fit(prompt, responses)
        self.num_truncated += num_cut
        return Tree(prompt, fitted, positions, start, media)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]; the vision tower runs once an image."""
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model(
                input_ids=forest.input_ids, position_ids=forest.positions, **forest.media, **arguments
            )
        )

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the vision tower, the merger that projects into the decoder's width, and the decoder."""
        visual = self.model.visual
        mergers = [module for name, module in visual.named_children() if "merger" in name]
        towers = [module for name, module in visual.named_children() if "merger" not in name]
        return {
            "vision": nn.ModuleList(towers),
            "projector": nn.ModuleList(mergers),
            "language": self.model.language_model,
        }

    def truncate(self, num_layers: int) -> None:
        """Keep the first decoder layers only."""
        self.decoder.truncate(num_layers)

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and image processor in the hub's layout."""
        self.model.save_pretrained(directory, max_shard_size="5GB")
        self.tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)

    def _patches(self, comparison: Comparison) -> dict[str, Tensor]:
        """Return `pixel_values` [patches, features] and `image_grid_thw` [images, 3], if there are images."""
        if not comparison.images:
            return {}
        try:
            found = self.image_processor(
                images=[image.open() for image in comparison.images], return_tensors="pt"
            )
        except ValueError as error:
            # The processor refuses what it can't resize, such as a picture 200 times as wide as high.
            raise DataError(f"the image processor refuses a picture: {error}", field="images") from error
        return {"pixel_values": found["pixel_values"], "image_grid_thw": found["image_grid_thw"]}


def mrope_positions(
    ids: list[int], image_token: int, sizes: list[tuple[int, int, int]]
) -> tuple[Tensor, int]:  # [3, P], start of what follows
    """Return the temporal, height and width positions of a prompt (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts on all axes alike. An image of t x h x w merged patches counts its rows and columns from where
    it begins, and what follows it begins after the larger of h and w.
    """
    pieces: list[Tensor] = []
    position = 0
    place = 0
    images = iter(sizes)
    while place < len(ids):
        if ids[place] == image_token:
            frames, height, width = next(images)
            grid = torch.stack(
                torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
            )
            pieces.append(grid.flatten(1) + position)
            place += frames * height * width
            position += max(height, width)
        else:
            stop = next((later for later in range(place, len(ids)) if ids[later] == image_token), len(ids))
            pieces.append(torch.arange(position, position + stop - place).expand(3, -1))
            position += stop - place
            place = stop
    return torch.cat(pieces, dim=1), position


def _load_image_processor(model: str, min_pixels: int | None, max_pixels: int | None) -> Any:
    # The Pillow backend everywhere: torchvision's resizing differs by up to 0.03, and scores would with it.
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(**source_arguments(model), backend="pil")
    if min_pixels is not None or max_pixels is not None:
        size = dict(processor.size)
        processor.size = {
            "shortest_edge": size["shortest_edge"] if min_pixels is None else min_pixels,
            "longest_edge": size["longest_edge"] if max_pixels is None else max_pixels,
        }
    return processor
