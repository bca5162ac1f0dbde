"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL as backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from basereward.backbones.base import Backbone, Limit
from basereward.backbones.pretrained import (
    Decoder,
    load_model,
    load_tokenizer,
    save_model,
    source_arguments,
)
from basereward.backbones.quantized import Quantization
from basereward.backbones.qwen_video import frame_bounds, video_patches
from basereward.chat import Chat
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest import Forest, Tree
from basereward.media import Image, Video

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
VIDEO_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
"""Those that read a video as one block of patches."""


class QwenVL(Backbone):
    """A Qwen vision-language model without its language-model head.

    Args:
        model: A directory with model, tokenizer and image processor, or a hub id.
        dtype: Type of the weights.
        quantize: `4bit` keeps the linear layers of the language model in 4 bits (bitsandbytes), for training
            with adapters in little memory; None for none. Models are saved with plain weights.
        min_pixels: Pixels that a smaller picture is enlarged to; None keeps the processor's own bound.
        max_pixels: Pixels that a larger picture is reduced to; None keeps the processor's own bound.
        max_frames: Frames that are read of a video, evenly from its first to its last. Qwen2-VL and
            Qwen2.5-VL read videos; Qwen3-VL's time stamps are not supported.
        max_tokens: The longest that prompt (images included) and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` computes visible pairs of tokens only; `dense` is its reference.
    """

    unsaved_options = ("quantize",)

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantization | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_frames: int = 16,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
    ) -> None:
        super().__init__()
        self.model: Any = load_model(model, dtype=dtype, quantize=quantize, skipped=("visual",))
        config = self.model.config
        if config.model_type not in MODEL_TYPES:
            raise ConfigError(
                f"{model} is a {config.model_type!r} model; qwen-vl reads {', '.join(MODEL_TYPES)}"
            )
        if max_frames < 1:
            raise ConfigError(f"backbone option max_frames is {max_frames}; allowed: 1 or more")
        self.max_frames = max_frames
        self.frame_bounds = frame_bounds(min_pixels, max_pixels)
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
        images, videos = self._image_patches(comparison), self._video_patches(comparison)
        tokens = {Image: config.image_token_id, Video: config.video_token_id}
        ids: dict[type, list[list[int]]] = {Image: [], Video: []}
        grids = {
            Image: [(Grid(*self._merged(grid)), 1.0) for grid in images.get("image_grid_thw", ())],
            Video: [
                (Grid(*self._merged(grid)), self._interval(video))
                for grid, video in zip(videos.get("video_grid_thw", ()), comparison.videos, strict=True)
            ],
        }
        for kind, token in tokens.items():
            for grid, _ in grids[kind]:
                ids[kind].append(
                    [config.vision_start_token_id, *[token] * math.prod(grid), config.vision_end_token_id]
                )
        prompt, responses = self.chat.encode(comparison.prompt, comparison.responses, ids[Image], ids[Video])
        positions, start = mrope_positions(prompt, {tokens[kind]: grids[kind] for kind in tokens})
        fitted, num_cut = self.limit.fit(prompt, responses)
        self.num_truncated += num_cut
        return Tree(prompt, fitted, positions, start, {**images, **videos})

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]; the vision tower runs once an image."""
        embedded, deepstack = self._with_pictures(forest)
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model.language_model(
                inputs_embeds=embedded, position_ids=forest.positions, **deepstack, **arguments
            )
        )

    def _with_pictures(self, forest: Forest) -> tuple[Tensor, dict[str, Any]]:
        """Return the embeddings [B, L, D] with features in the pictures' places, and what Qwen3-VL adds to
        its first layers.

        Images and videos go through the tower together: whatever a batch holds, there is one pass, or none.
        """
        config, media = self.model.config, forest.media
        embedded = self.model.get_input_embeddings()(forest.input_ids)
        kinds = {
            config.image_token_id: ("pixel_values", "image_grid_thw"),
            config.video_token_id: ("pixel_values_videos", "video_grid_thw"),
        }
        found = {token: names for token, names in kinds.items() if names[0] in media}
        if not found and not self.always_runs_vision:
            return embedded, {}
        patches = [media[names[0]] for names in found.values()]
        grids = [media[names[1]] for names in found.values()]
        if not found:
            patches, grids = self._no_picture(embedded.device)
        seen = self.model.get_image_features(torch.cat(patches), torch.cat(grids), return_dict=True)
        features = torch.cat(seen.pooler_output).to(embedded.dtype)  # [merged patches, D]
        deep = [torch.cat(layer) for layer in getattr(seen, "deepstack_features", ())]
        if not found:
            # Joined before the decoder, as pictures are: so the backward pass, too, meets all in one order.
            return embedded + 0.0 * sum(state.sum() for state in (features, *deep)), {}
        sizes = [int(grid.prod(-1).sum()) // self.merge**2 for grid in grids]
        for token, own in zip(found, features.split(sizes), strict=True):
            embedded = embedded.masked_scatter((forest.input_ids == token)[..., None], own)
        if not deep:
            return embedded, {}
        places = forest.input_ids == config.image_token_id
        return embedded, {"visual_pos_masks": places, "deepstack_visual_embeds": deep}

    def _no_picture(self, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """Return the patches [patches, features] and the grid [1, 3] of the smallest picture, all zero."""
        convolution = self.model.visual.patch_embed.proj
        width = convolution.in_channels * math.prod(convolution.kernel_size)
        patches = torch.zeros(self.merge**2, width, device=device)
        return [patches], [torch.tensor([[1, self.merge, self.merge]], device=device)]

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
        save_model(self.model, directory)
        self.tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)

    def _merged(self, grid: Tensor) -> tuple[int, int, int]:
        """Return frames, rows and columns of a grid of patches after the tower has merged them."""
        frames, height, width = grid.tolist()
        return frames, height // self.merge, width // self.merge

    def _interval(self, video: Video) -> float:
        """Return by how much the time axis goes on from one pair of frames to the next.

        Qwen2.5-VL counts time (arXiv 2502.13923, section 2.1.2): two frames take 2 / fps seconds, and one
        second where fps is not known. Qwen2-VL counts pairs.
        """
        vision = self.model.config.vision_config
        if self.model.config.model_type == "qwen2_vl":
            return 1.0
        fps = video.sampled(self.max_frames).fps
        seconds = 1.0 if fps is None else self.image_processor.temporal_patch_size / fps
        return float(vision.tokens_per_second * seconds)

    def _image_patches(self, comparison: Comparison) -> dict[str, Tensor]:
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

    def _video_patches(self, comparison: Comparison) -> dict[str, Tensor]:
        """Return `pixel_values_videos` [patches, features] and `video_grid_thw` [videos, 3], if there are
        any.
        """
        if not comparison.videos:
            return {}
        if (kind := self.model.config.model_type) not in VIDEO_MODEL_TYPES:
            raise DataError(
                f"videos of {kind} have time stamps in the text, which is not supported; "
                "give frames as images",
                field="videos",
            )
        try:
            found = [
                video_patches(video.sampled(self.max_frames), self.image_processor, self.frame_bounds)
                for video in comparison.videos
            ]
        except ValueError as error:
            raise DataError(f"the image processor refuses a frame: {error}", field="videos") from error
        patches, grids = zip(*found, strict=True)
        return {"pixel_values_videos": torch.cat(patches), "video_grid_thw": torch.stack(grids)}


class Grid(NamedTuple):
    """Merged patches of an image or a video along each axis."""

    frames: int
    height: int
    width: int


def mrope_positions(
    ids: list[int], visions: Mapping[int, Sequence[tuple[Grid, float]]]
) -> tuple[Tensor, int]:  # [3, P], start of what follows
    """Return the temporal, height and width positions of a prompt (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts on all axes alike. An image or a video of t x h x w merged patches counts its rows and columns
    from where it begins, and what follows it begins after the larger of h and w.

    Args:
        ids: The prompt's token ids.
        visions: For the token of images, and that of videos, what each run of it stands for: its grid, and by
            how much the time axis goes on from one step to the next.
    """
    pieces: list[Tensor] = []
    position = 0
    place = 0
    waiting = {token: iter(grids) for token, grids in visions.items()}
    while place < len(ids):
        if ids[place] in waiting:
            grid, interval = next(waiting[ids[place]])
            axes = [torch.arange(size) for size in grid]
            axes[0] = (axes[0] * interval).long()
            pieces.append(torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1) + position)
            place += math.prod(grid)
            position += max(grid.height, grid.width)
        else:
            stop = next((later for later in range(place, len(ids)) if ids[later] in waiting), len(ids))
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
