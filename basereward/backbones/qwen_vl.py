"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL as backbones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from basereward.backbones import vision_attention
from basereward.backbones.feature_cache import FeatureCache
from basereward.backbones.image_feature_cache import ImageFeatureCache
from basereward.backbones.image_places import put_at
from basereward.backbones.quantization import Quantization
from basereward.backbones.qwen_tower import READ_ON_CPU, add_at_places, as_keywords, grid_arguments
from basereward.backbones.qwen_video import frame_bounds, video_patches
from basereward.backbones.template_source import DATE
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.backbones.transformers_model import source_arguments
from basereward.backbones.untrusted_settings import reading
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest.forest import Forest, Tree
from basereward.hardware.transfer import moved
from basereward.media.image import Image
from basereward.media.video import Video

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
VIDEO_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
"""Those that read a video as one block of patches."""
DEEP_MODEL_TYPES = ("qwen3_vl", "qwen3_vl_moe")
"""Those whose first decoder layers get further features of images."""


class QwenVL(TransformersBackbone):
    """A Qwen vision-language model without its language-model head.

    Args:
        model: A directory with model, tokenizer and image processor, or a hub id.
        min_pixels: Pixels that a smaller image is enlarged to; None keeps the processor's own bound.
        max_pixels: Pixels that a larger image is reduced to; None keeps the processor's own bound.
        max_frames: Frames that are read of a video, evenly from its first to its last; of one whose frames a
            benchmark chose all are. Qwen2-VL and Qwen2.5-VL read videos; Qwen3-VL's time stamps are not
            supported.
    """

    unquantized = ("visual",)
    read_on_cpu = READ_ON_CPU

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
        chat_template: str = "default",
        template_date: str = DATE,
    ) -> None:
        if max_frames < 1:
            raise ConfigError(f"backbone option max_frames is {max_frames}; allowed: 1 or more")
        super().__init__(
            model=model,
            dtype=dtype,
            quantize=quantize,
            max_tokens=max_tokens,
            on_long=on_long,
            attention=attention,
            chat_template=chat_template,
            template_date=template_date,
        )
        self.max_frames = max_frames
        self.frame_bounds = frame_bounds(min_pixels, max_pixels)
        self.image_processor = _load_image_processor(model, min_pixels, max_pixels)
        self.merge = self.model.config.vision_config.spatial_merge_size
        self._cache: ImageFeatureCache | None = None

    @classmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Refuse models that are no Qwen-VL."""
        if (kind := model.config.model_type) not in MODEL_TYPES:
            raise ConfigError(f"{source} is a {kind!r} model; qwen-vl reads {', '.join(MODEL_TYPES)}")

    def _take_model(self, model: Any, source: str, mode: str, quantize: Quantization | None) -> None:
        super()._take_model(model, source, mode, quantize)
        if model.config.model_type in DEEP_MODEL_TYPES:
            language = model.language_model
            language._deepstack_process = add_at_places(language._deepstack_process)

    @staticmethod
    def decoder_of(model: Any) -> Any:
        """Return the language model."""
        return model.language_model

    def image_tokens(self) -> Sequence[int]:
        """Return the tokens of images and of videos."""
        return self.model.config.image_token_id, self.model.config.video_token_id

    @staticmethod
    def vision_attention() -> str:
        """Return the name of the attention that computes all images and windows in one call."""
        return vision_attention.register()

    @staticmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the vision tower, the merger that projects into the decoder's width, and the decoder."""
        modules = dict(model.visual.named_children())
        return {
            "vision": nn.ModuleList(module for name, module in modules.items() if "merger" not in name),
            "projector": nn.ModuleList(module for name, module in modules.items() if "merger" in name),
            "language": model.language_model,
        }

    def image_bytes(self, width: int, height: int) -> int:
        """Return the bytes of an image's patches; 0 for one that the image processor refuses."""
        processor = self.image_processor
        try:
            num_patches = processor.get_number_of_image_patches(height, width)
        except (ValueError, ZeroDivisionError):
            return 0
        return int(3 * 4 * processor.temporal_patch_size * processor.patch_size**2 * num_patches)

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
        prompt, responses, leads = self.chat.encoding(
            comparison.prompt, comparison.responses, ids[Image], ids[Video]
        )
        positions, start = mrope_positions(prompt, {tokens[kind]: grids[kind] for kind in tokens})
        # Cached images count too: how a batch is divided must not depend on what is in a cache.
        all_grids = [*images.get("image_grid_thw", ()), *videos.get("video_grid_thw", ())]
        patches = sum(int(grid.prod()) for grid in all_grids)
        media = {**images, **videos}
        return Tree(prompt, self.cut(prompt, responses), positions, start, media, patches, leads)

    def pack(self, trees: Sequence[Tree], *, shared: bool = True, row_tokens: float | None = None) -> Forest:
        """Pack trees into a forest on the CPU, with all that the tower computes of grids alone."""
        forest = super().pack(trees, shared=shared, row_tokens=row_tokens)
        grids = [forest.media[name] for name in ("image_grid_thw", "video_grid_thw") if name in forest.media]
        if not grids:
            return forest
        if "image_keys" in forest.media:  # images are computed one by one, those that aren't cached
            return forest
        arguments = grid_arguments(self.model.visual, torch.cat(grids))
        return replace(forest, media={**forest.media, **arguments})

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
        """Return the embeddings [B, L, D] with features at the image tokens, and the arguments by which
        Qwen3-VL adds deeper features to its first layers.
        """
        embedded = self.model.get_input_embeddings()(forest.input_ids)
        seen = self._features(forest.media)
        if not seen:
            if self.always_runs_vision:
                # Joined before the decoder, as images are: so the backward pass meets all in one order.
                embedded = embedded + 0.0 * self._tower(*self._no_image(embedded.device))[0].sum()
            return embedded, {}
        places = forest.media["image_places"]
        features, *deep = torch.cat(seen).to(embedded.dtype).split(self.dim, dim=-1)
        embedded = put_at(embedded, places, features)
        return embedded, {"visual_pos_masks": places, "deepstack_visual_embeds": deep} if deep else {}

    def _features(self, media: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the features [merged patches, D] of each image, then those of each video.

        Both go through the tower together: whatever a batch holds, there is one pass, or none.
        """
        if "image_keys" in media:
            assert self._cache is not None
            images = self._cache.features(
                media,
                num_pixels=lambda grids: grids.prod(-1),
                num_tokens=lambda grids: grids.prod(-1) // self.merge**2,
                tower=lambda patches, grid: self._tower(patches, grid)[0],
            )
            return images + self._features({name: value for name, value in media.items() if "video" in name})
        names = [("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")]
        inputs = [(media[patches], media[grids]) for patches, grids in names if patches in media]
        if not inputs:
            return []
        patches, grids = map(torch.cat, zip(*inputs, strict=True))
        return self._tower(patches, grids, as_keywords(media))

    def _tower(
        self, patches: Tensor, grids: Tensor, arguments: Mapping[str, Any] | None = None
    ) -> list[Tensor]:
        """Return the features of each image [merged patches, D], those for deeper layers beside them.

        Args:
            patches: The patches of all images.
            grids: Their grids [images, 3], on the CPU.
            arguments: Further ones that depend on the grids alone; made here where they weren't before.
        """
        if not arguments:
            made = grid_arguments(self.model.visual, grids)
            arguments = as_keywords(
                {
                    name: value if name in READ_ON_CPU else moved(value, patches.device)
                    for name, value in made.items()
                }
            )
        output = self.model.get_image_features(patches, grids, return_dict=True, **arguments)
        layers = [output.pooler_output, *output.get("deepstack_features", ())]
        return [torch.cat(layers_of_image, dim=-1) for layers_of_image in zip(*layers, strict=True)]

    def _no_image(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the patches [patches, features] and the grid [1, 3] of the smallest image, all zero."""
        convolution = self.model.visual.patch_embed.proj
        width = convolution.in_channels * math.prod(convolution.kernel_size)
        patches = torch.zeros(self.merge**2, width, device=device)
        return patches, torch.tensor([[1, self.merge, self.merge]])

    def settings(self) -> Mapping[str, Any]:
        """Return those of the image processor and of videos."""
        frames = [self.max_frames, dict(self.frame_bounds)]
        return {"images": self.image_processor.to_json_string(), "frames": frames}

    def attach_feature_cache(self, cache: FeatureCache, precision: str) -> None:
        """Cache the features of images, if the vision tower is frozen, its merger included."""
        visual = self.model.visual
        if not any(parameter.requires_grad for parameter in visual.parameters()):
            self._cache = ImageFeatureCache(cache, visual, precision, self._vision_settings)

    def _vision_settings(self) -> list[str]:
        return ["pil", self.image_processor.to_json_string(), self.model.visual.config.to_json_string()]

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and image processor in the hub's layout."""
        super().save(directory)
        self.image_processor.save_pretrained(directory)

    def _merged(self, grid: Tensor) -> tuple[int, int, int]:
        """Return frames, rows and columns of a grid of patches after the tower has merged them."""
        frames, height, width = grid.tolist()
        return frames, height // self.merge, width // self.merge

    def _interval(self, video: Video) -> float:
        """Return the step of the time axis from one pair of frames to the next.

        Qwen2.5-VL counts time (arXiv 2502.13923, section 2.1.2): two frames take 2 / fps seconds, and one
        second where fps is not known. Qwen2-VL counts pairs.
        """
        vision = self.model.config.vision_config
        if self.model.config.model_type == "qwen2_vl":
            return 1.0
        fps = video.limited(self.max_frames).fps
        seconds = 1.0 if fps is None else self.image_processor.temporal_patch_size / fps
        return float(vision.tokens_per_second * seconds)

    def _image_patches(self, comparison: Comparison) -> dict[str, Tensor]:
        """Return `pixel_values` [patches, features] and `image_grid_thw` [images, 3], if there are images;
        with a cache, the tensors of `ImageFeatureCache.media`.
        """
        images = comparison.images
        if self._cache is None or not images:
            return self._pixels(images)
        keys = [self._cache.key(image) for image in images]
        return self._cache.media(keys, lambda numbers: self._pixels([images[number] for number in numbers]))

    def _pixels(self, images: Sequence[Image]) -> dict[str, Tensor]:
        if not images:
            return {}
        try:
            output = self.image_processor(images=[image.open() for image in images], return_tensors="pt")
        except ValueError as error:
            # The processor refuses what it can't resize, such as an image 200 times as wide as high.
            raise DataError(f"the image processor refuses an image: {error}", field="images") from error
        return {"pixel_values": output["pixel_values"], "image_grid_thw": output["image_grid_thw"]}

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
            read = [
                video_patches(video.limited(self.max_frames), self.image_processor, self.frame_bounds)
                for video in comparison.videos
            ]
        except ValueError as error:
            raise DataError(f"the image processor refuses a frame: {error}", field="videos") from error
        patches, grids = zip(*read, strict=True)
        return {"pixel_values_videos": torch.cat(patches), "video_grid_thw": torch.stack(grids)}


class Grid(NamedTuple):
    """Merged patches of an image or a video along each axis."""

    frames: int
    height: int
    width: int


def mrope_positions(
    ids: list[int], visions: Mapping[int, Sequence[tuple[Grid, float]]]
) -> tuple[Tensor, int]:  # [3, P], position of the next token
    """Return the temporal, height and width positions of a prompt (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts on all axes alike. An image or a video of t x h x w merged patches counts its rows and columns
    from its start, and the next token's position is its start plus the larger of h and w.

    Args:
        ids: The prompt's token ids.
        visions: For the image token and the video token, the grid of each run of it, and the step of the time
            axis.
    """
    runs: list[Tensor] = []
    position = 0
    place = 0
    waiting = {token: iter(grids) for token, grids in visions.items()}
    while place < len(ids):
        if ids[place] in waiting:
            grid, interval = next(waiting[ids[place]])
            axes = [torch.arange(size) for size in grid]
            axes[0] = (axes[0] * interval).long()
            runs.append(torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1) + position)
            place += math.prod(grid)
            position += max(grid.height, grid.width)
        else:
            stop = next((later for later in range(place, len(ids)) if ids[later] in waiting), len(ids))
            runs.append(torch.arange(position, position + stop - place).expand(3, -1))
            position += stop - place
            place = stop
    return torch.cat(runs, dim=1), position


def _load_image_processor(model: str, min_pixels: int | None, max_pixels: int | None) -> Any:
    # The Pillow backend everywhere: torchvision's resizing differs by up to 0.03, and scores would with it.
    from transformers import AutoImageProcessor

    with reading(model, "the image processor (preprocessor_config.json)"):
        processor: Any = AutoImageProcessor.from_pretrained(**source_arguments(model), backend="pil")
    if min_pixels is not None or max_pixels is not None:
        size = dict(processor.size)
        processor.size = {
            "shortest_edge": size["shortest_edge"] if min_pixels is None else min_pixels,
            "longest_edge": size["longest_edge"] if max_pixels is None else max_pixels,
        }
    return processor
