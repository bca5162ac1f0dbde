"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL as backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from basereward.backbones.base import Backbone, Limit
from basereward.backbones.chat_template import Chat
from basereward.backbones.feature_cache import FeatureCache
from basereward.backbones.image_feature_cache import KeptFeatures
from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.quantization import Quantization
from basereward.backbones.qwen_video import frame_bounds, video_patches
from basereward.backbones.transformers_model import (
    Decoder,
    load_model,
    load_tokenizer,
    save_model,
    source_arguments,
)
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest.forest import Forest, Tree
from basereward.media.image import Image
from basereward.media.video import Video

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
        min_pixels: Pixels that a smaller image is enlarged to; None keeps the processor's own bound.
        max_pixels: Pixels that a larger image is reduced to; None keeps the processor's own bound.
        max_frames: Frames that are read of a video, evenly from its first to its last. Qwen2-VL and
            Qwen2.5-VL read videos; Qwen3-VL's time stamps are not supported.
        max_tokens: The longest that prompt (images included) and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` computes visible pairs of tokens only; `dense` is its reference.
    """

    unsaved_options = ("quantize",)

    limit: Limit

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
        self._source = model
        self.merge = config.vision_config.spatial_merge_size
        self._kept: KeptFeatures | None = None

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
        # Known images count too: how a batch is divided must not depend on what a cache knows.
        all_grids = [*images.get("image_grid_thw", ()), *videos.get("video_grid_thw", ())]
        patches = sum(int(grid.prod()) for grid in all_grids)
        return Tree(prompt, fitted, positions, start, {**images, **videos}, patches)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]; the vision tower runs once an image."""
        embedded, deepstack = self._with_images(forest)
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model.language_model(
                inputs_embeds=embedded, position_ids=forest.positions, **deepstack, **arguments
            )
        )

    def _with_images(self, forest: Forest) -> tuple[Tensor, dict[str, Any]]:
        """Return the embeddings [B, L, D] with features in the images' places, and what Qwen3-VL adds to
        its first layers.
        """
        config = self.model.config
        embedded = self.model.get_input_embeddings()(forest.input_ids)
        images, videos = self._features(forest.media)
        if not images and not videos:
            if self.always_runs_vision:
                # Joined before the decoder, as images are: so the backward pass meets all in one order.
                embedded = embedded + 0.0 * self._tower(*self._no_image(embedded.device))[0].sum()
            return embedded, {}
        deep: list[Tensor] = []
        for token, found in ((config.image_token_id, images), (config.video_token_id, videos)):
            if found:
                features, *deep = torch.cat(found).to(embedded.dtype).split(self.dim, dim=-1)
                embedded = embedded.masked_scatter((forest.input_ids == token)[..., None], features)
        if not deep:
            return embedded, {}
        places = forest.input_ids == config.image_token_id
        return embedded, {"visual_pos_masks": places, "deepstack_visual_embeds": deep}

    def _features(self, media: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features [merged patches, D] of each image and of each video.

        Both go through the tower together: whatever a batch holds, there is one pass, or none.
        """
        if "image_keys" in media:
            assert self._kept is not None
            images = self._kept.features(
                media,
                num_pixels=lambda grids: grids.prod(-1),
                num_tokens=lambda grids: grids.prod(-1) // self.merge**2,
                tower=lambda patches, grid: self._tower(patches, grid)[0],
            )
            _, videos = self._features({name: value for name, value in media.items() if "video" in name})
            return images, videos
        names = [("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")]
        found = [(media[patches], media[grids]) for patches, grids in names if patches in media]
        if not found:
            return [], []
        patches, grids = map(torch.cat, zip(*found, strict=True))
        seen = self._tower(patches, grids)
        num_images = len(media.get("image_grid_thw", ()))
        return seen[:num_images], seen[num_images:]

    def _tower(self, patches: Tensor, grids: Tensor) -> list[Tensor]:
        """Return the features of each image [merged patches, D], those for deeper layers beside them."""
        seen = self.model.get_image_features(patches, grids, return_dict=True)
        layers = [seen.pooler_output, *getattr(seen, "deepstack_features", ())]
        return [torch.cat(own, dim=-1) for own in zip(*layers, strict=True)]

    def _no_image(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the patches [patches, features] and the grid [1, 3] of the smallest image, all zero."""
        convolution = self.model.visual.patch_embed.proj
        width = convolution.in_channels * math.prod(convolution.kernel_size)
        patches = torch.zeros(self.merge**2, width, device=device)
        return patches, torch.tensor([[1, self.merge, self.merge]], device=device)

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

    def language_head(self) -> LanguageHead:
        """Return the head that the language model was loaded without."""
        return self.decoder.language_head(self._source)

    def fingerprint(self) -> str:
        """Return a digest of tokenizer, template and settings."""
        frames = [self.max_frames, dict(self.frame_bounds)]
        return self.decoder.fingerprint(
            self.chat, self.limit, images=self.image_processor.to_json_string(), frames=frames
        )

    def attach_feature_cache(self, cache: FeatureCache, precision: str) -> None:
        """Keep the features of images, if the vision tower is frozen, its merger included."""
        visual = self.model.visual
        if not any(parameter.requires_grad for parameter in visual.parameters()):
            self._kept = KeptFeatures(cache, visual, precision, self._vision_settings)

    def _vision_settings(self) -> list[str]:
        return ["pil", self.image_processor.to_json_string(), self.model.visual.config.to_json_string()]

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
        """Return `pixel_values` [patches, features] and `image_grid_thw` [images, 3], if there are images;
        with a cache, what `KeptFeatures.media` has.
        """
        images = comparison.images
        if self._kept is None or not images:
            return self._pixels(images)
        keys = [self._kept.key(image) for image in images]
        return self._kept.media(keys, lambda numbers: self._pixels([images[number] for number in numbers]))

    def _pixels(self, images: Sequence[Image]) -> dict[str, Tensor]:
        if not images:
            return {}
        try:
            found = self.image_processor(images=[image.open() for image in images], return_tensors="pt")
        except ValueError as error:
            # The processor refuses what it can't resize, such as an image 200 times as wide as high.
            raise DataError(f"the image processor refuses an image: {error}", field="images") from error
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
