"""Frames of a video as patches of the Qwen vision tower, each of which spans two frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from basereward.errors import DataError
from basereward.media.video import Video

MIN_PIXELS = 128 * 28 * 28
MAX_PIXELS = 768 * 28 * 28
"""Pixels of a frame, from and up to which Qwen's own video processor resizes it."""


def frame_bounds(min_pixels: int | None, max_pixels: int | None) -> Mapping[str, int]:
    """Return the bounds of a frame's pixels, as an image processor takes them.

    Args:
        min_pixels: The user's bound for images; None for the video processor's own.
        max_pixels: Likewise; frames are never larger than the video processor's bound.
    """
    largest = MAX_PIXELS if max_pixels is None else min(max_pixels, MAX_PIXELS)
    smallest = MIN_PIXELS if min_pixels is None else min_pixels
    return {"shortest_edge": min(smallest, largest), "longest_edge": largest}


def video_patches(
    video: Video, image_processor: Any, bounds: Mapping[str, int]
) -> tuple[Tensor, Tensor]:  # [t * h * w, features], [3]
    """Return the patches of a video's frames and its grid t, h, w, counted in patches.

    Every frame goes through the image processor, so there is one way of resizing. Patches of two frames are
    joined; a last frame without a partner is repeated.

    Args:
        video: The frames, all of which are read.
        image_processor: A Qwen2-VL image processor.
        bounds: Of a frame's pixels, from `frame_bounds`.

    Raises:
        DataError: When a frame can't be opened, or the frames differ in size.
        ValueError: When the processor refuses a frame's shape.
    """
    frames = [frame.open() for frame in video.frames]
    if len(sizes := {frame.size for frame in frames}) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise DataError(f"the frames of a video differ in size: {listed}", field="videos")
    span = image_processor.temporal_patch_size
    frames += [frames[-1]] * (-len(frames) % span)
    output = image_processor(images=frames, size=dict(bounds), return_tensors="pt")
    _, height, width = output["image_grid_thw"][0].tolist()
    patches = output["pixel_values"]  # [frames * h * w, C * span * p * p]: every frame `span` times
    size = image_processor.patch_size
    # [t, span, h * w, C, p * p]: each frame once
    once = patches.reshape(-1, span, height * width, patches.shape[1] // (span * size**2), span, size**2)
    joined = once[..., 0, :].permute(0, 2, 3, 1, 4)  # [t, h * w, C, span, p * p]
    grid = torch.tensor([len(frames) // span, height, width])
    return joined.reshape(-1, patches.shape[1]), grid
