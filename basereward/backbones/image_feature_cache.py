"""A cache of the features that a frozen vision tower computes of single images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.feature_cache import FeatureCache, WeightsDigest, key_of, precision_of
from basereward.media.image import Image


class ImageFeatureCache:
    """The features of images, each with the grid of patches that it was cut into.

    Args:
        cache: Stores them.
        tower: The vision tower, which computes them.
        precision: The precision that it runs in, as `precision_of` returns it.
        settings: Returns the settings of image processor and tower, for JSON.
    """

    def __init__(
        self, cache: FeatureCache, tower: nn.Module, precision: str, settings: Callable[[], Any]
    ) -> None:
        self.cache = cache
        self.precision = precision
        self.settings = settings
        self._tower = tower
        self._digest = WeightsDigest(tower)

    def key(self, image: Image, *more: Any) -> str:
        """Return the key of an image's features; `more` are further settings of this image."""
        device = next(self._tower.parameters()).device.type
        settings = self.settings()
        return key_of("image", self._digest(), settings, self.precision, device, image.digest, *more)

    def get(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Return the features [merged patches, D] and the grid [3] of an image; None if it isn't cached."""
        entry = self.cache.get(key)
        return None if entry is None else (entry["features"], entry["grid"])

    def put(self, key: str, features: Tensor, grid: Tensor) -> None:
        """Cache the features of an image."""
        if precision_of(features.device) == self.precision:
            self.cache.put(key, {"features": features, "grid": grid})

    def media(
        self, keys: Sequence[str], pixels: Callable[[list[int]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors of images: pixels of those that aren't cached, features of the others.

        These are `pixel_values` and `image_features` [tokens, D], where there are any, and `image_grid_thw`
        [images, 3], `image_is_cached` [images] and `image_keys` [images, 32].

        Args:
            keys: The keys of one image or more.
            pixels: Returns `pixel_values` and `image_grid_thw` of images by their numbers; of none, nothing.
        """
        entries = [self.get(key) for key in keys]
        new = dict(pixels([number for number, entry in enumerate(entries) if entry is None]))
        grids = iter(new.pop("image_grid_thw", ()))
        features = [entry[0] for entry in entries if entry is not None]
        return {
            **new,
            **({"image_features": torch.cat(features)} if features else {}),
            "image_grid_thw": torch.stack([next(grids) if entry is None else entry[1] for entry in entries]),
            "image_is_cached": torch.tensor([entry is not None for entry in entries]),
            "image_keys": keys_as_tensor(keys),
        }

    def features(
        self,
        media: Mapping[str, Tensor],
        *,
        num_pixels: Callable[[Tensor], Tensor],  # [images, 3] -> [images]
        num_tokens: Callable[[Tensor], Tensor],
        tower: Callable[[Tensor, Tensor], Tensor],
    ) -> list[Tensor]:
        """Return the features [tokens, D] of each image, computed and cached where they aren't yet.

        Args:
            media: The tensors of `media`, joined over comparisons.
            num_pixels: Returns the rows of `pixel_values` of images by their grids.
            num_tokens: Returns their rows of features.
            tower: Computes features of the pixels and the grid [1, 3] of one image.
        """
        grids, is_cached = media["image_grid_thw"], media["image_is_cached"]
        cached: Iterator[Tensor] = iter(())
        pixels: Iterator[Tensor] = iter(())
        if "image_features" in media:
            cached = iter(torch.split(media["image_features"], num_tokens(grids[is_cached]).tolist()))
        if "pixel_values" in media:
            pixels = iter(torch.split(media["pixel_values"], num_pixels(grids[~is_cached]).tolist()))
        images = []
        keys = keys_of_tensor(media["image_keys"])
        for key, grid, has_features in zip(keys, grids, is_cached.tolist(), strict=True):
            if has_features:
                images.append(next(cached))
                continue
            # One image at a time, since the last digits could depend on the others of a batch.
            features = tower(next(pixels), grid[None])
            self.put(key, features, grid)
            images.append(features)
        return images


def keys_as_tensor(keys: Sequence[str]) -> Tensor:  # [images, 32]
    """Return keys as bytes, so that they can travel with the images' tensors."""
    return torch.tensor([list(bytes.fromhex(key)) for key in keys], dtype=torch.uint8).reshape(-1, 32)


def keys_of_tensor(keys: Tensor) -> list[str]:
    """Return the keys of `keys_as_tensor`."""
    return [bytes(key).hex() for key in keys.tolist()]
