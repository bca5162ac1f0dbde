"""The arguments of Qwen's vision towers that depend on the grids of images alone.

They are made on the CPU, where the grids are, and move to the device with the images: a tower that made them
there would wait for it several times an image, and once for each window.

Shapes: B rows, L tokens in a row, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from basereward.backbones.image_places import READ_ON_CPU as IMAGES_READ_ON_CPU
from basereward.backbones.image_places import add_at

PREFIX = "tower."
"""The beginning of the arguments' names among a forest's media."""

READ_ON_CPU = IMAGES_READ_ON_CPU | {f"{PREFIX}max_seqlen", f"{PREFIX}max_window_seqlen"}
"""Names of media that are read as numbers."""


def grid_arguments(visual: Any, grids: Tensor) -> dict[str, Tensor]:
    """Return the arguments of a tower by the grids [images, 3], as media.

    Args:
        visual: The tower of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL.
        grids: Patches of each image or video in time, height and width; on the CPU.
    """
    from transformers import vision_utils

    merge = visual.spatial_merge_size
    starts = vision_utils.get_vision_cu_seqlens(grids)
    arguments = {
        "position_ids": vision_utils.get_vision_position_ids(grids, merge),
        "cu_seqlens": starts,
        "max_seqlen": starts.diff().max(),
    }
    kind = visual.config.model_type
    if kind.startswith("qwen2_5_vl"):
        index, starts = vision_utils.get_vision_window_index(
            grids,
            spatial_merge_size=merge,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        arguments["window_index"] = index
        arguments["cu_window_seqlens"] = starts
        arguments["max_window_seqlen"] = starts.diff().max()
    elif kind.startswith("qwen3_vl"):
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grids,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        arguments |= {"interp_indices": indices, "interp_weights": weights}
    return {f"{PREFIX}{name}": value for name, value in arguments.items()}


def as_keywords(media: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments among media as the tower takes them."""
    return {
        name.removeprefix(PREFIX): int(value) if name in READ_ON_CPU else value
        for name, value in media.items()
        if name.startswith(PREFIX)
    }


def add_at_places(add: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return a decoder's method that adds features to the states of image tokens, which now takes places too.

    The method of transformers takes a mask [B, L], which it turns into places in each layer, and again in the
    backward pass, for which the device has to tell how many there are.
    """

    def process(
        hidden: Tensor,  # [B, L, D]
        places: Tensor,  # [2, n] rows and columns, or a mask [B, L]
        features: Tensor,  # [n, D]
    ) -> Tensor:
        if places.dtype == torch.bool:
            return add(hidden, places, features)
        return add_at(hidden, places, features)

    return process
