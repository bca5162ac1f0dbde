"""Patch grids of images, by the rules of the published image processors."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

from basereward.backbones.chat_template import Chat
from basereward.backbones.internvl import InternVL, marks
from basereward.backbones.qwen_video import frame_bounds
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.errors import DataError

Grid = tuple[int, int, int]
"""Patches along time, height and width."""


class ImageGrids(abc.ABC):
    """Patch grids of the images of one model.

    Args:
        patches_per_token: Patches that are merged into one token.
    """

    num_markers: int
    """Tokens around each image's own."""

    def __init__(self, patches_per_token: int) -> None:
        self.merge = math.isqrt(patches_per_token)

    def chat(self, tokenizer: Any) -> Chat:
        """Return the chat template of a model with such images."""
        return Chat(tokenizer)

    @abc.abstractmethod
    def grid(self, height: int, width: int) -> Grid:
        """Return the patches of an image of so many pixels.

        Raises:
            DataError: When the image processor refuses it.
        """

    @abc.abstractmethod
    def of_video(self, num_frames: int, height: int, width: int) -> Grid:
        """Return the patches of a video's frames of so many pixels."""

    @abc.abstractmethod
    def markers_of_video(self, num_frames: int) -> int:
        """Return the tokens around those of a video's frames."""

    def of_tokens(self, number: int) -> Grid:
        """Return the patches of an image of about so many tokens: a square, as near as can be."""
        side = math.isqrt(number)
        return 1, side * self.merge, number // side * self.merge


class ResizedGrids(ImageGrids):
    """Qwen-VL's: an image keeps its shape and is resized to whole tokens."""

    num_markers = 2

    def __init__(self, config: Any, options: Mapping[str, Any], patches_per_token: int) -> None:
        super().__init__(patches_per_token)
        self.patch = config.vision_config.patch_size
        factor = self.patch * self.merge
        # The bounds of the published image processors, tokens an image: 4, of Qwen3-VL 64, to 16384.
        least = 64 if "qwen3" in config.model_type else 4
        smallest, largest = options.get("min_pixels"), options.get("max_pixels")
        self.frame_bounds = tuple(frame_bounds(smallest, largest).values())
        self.bounds = (smallest or least * factor**2, largest or 16384 * factor**2)

    def grid(self, height: int, width: int) -> Grid:
        """Return the patches of an image."""
        return self._resized(height, width, self.bounds)

    def of_video(self, num_frames: int, height: int, width: int) -> Grid:
        """Return the patches of frames, two of which make one in time."""
        _, rows, columns = self._resized(height, width, self.frame_bounds)
        return math.ceil(num_frames / 2), rows, columns

    def markers_of_video(self, num_frames: int) -> int:
        """Return those of one image."""
        return self.num_markers

    def _resized(self, height: int, width: int, bounds: tuple[int, ...]) -> Grid:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        try:
            size = smart_resize(height, width, self.patch * self.merge, *bounds)
        except ValueError as error:
            raise DataError(f"the image processor refuses an image: {error}", field="images") from error
        return 1, size[0] // self.patch, size[1] // self.patch


class TiledGrids(ImageGrids):
    """InternVL's: an image is cut into tiles of one size, and is seen whole too where there are several."""

    num_markers = 2

    def __init__(self, config: Any, options: Mapping[str, Any], patches_per_token: int) -> None:
        super().__init__(patches_per_token)
        self.config = config
        vision = config.vision_config
        self.tile = tuple(vision.image_size)
        self.patches = [side // patch for side, patch in zip(self.tile, vision.patch_size, strict=True)]
        # The published image processors': 1 to 12.
        self.max_tiles = options.get("max_tiles") or 12

    def chat(self, tokenizer: Any) -> Chat:
        """Return the chat template, which writes marks of its own for images."""
        return Chat(tokenizer, marks(tokenizer, self.config))

    def grid(self, height: int, width: int) -> Grid:
        """Return the patches of an image, its tiles as if one after the other in time."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        columns, rows = get_optimal_tiled_canvas((height, width), self.tile, 1, self.max_tiles)
        number = columns * rows
        return (number if number == 1 else number + 1), self.patches[0], self.patches[1]

    def of_video(self, num_frames: int, height: int, width: int) -> Grid:
        """Return the patches of frames, each of which is one tile."""
        return num_frames, self.patches[0], self.patches[1]

    def markers_of_video(self, num_frames: int) -> int:
        """Return those of each frame, its number written before it."""
        return num_frames * (self.num_markers + FRAME_NUMBER)


FRAME_NUMBER = 4
"""Tokens of `Frame1: ` and the end of the line, about."""


def image_grids(
    backbone: TransformersBackbone, options: Mapping[str, Any], patches_per_token: int
) -> ImageGrids:
    """Return the rules of a backbone's image processor."""
    kind = TiledGrids if isinstance(backbone, InternVL) else ResizedGrids
    return kind(backbone.model.config, options, patches_per_token)
