"""What a frozen vision tower makes of single images, kept for later epochs and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.feature_cache import FeatureCache, WeightsDigest, key_of, precision_of
from basereward.media.image import Image


class KeptFeatures:
    """The features of images, each with the grid of patches that it was cut into.

    Args:
        cache: Where they are.
        tower: Makes them.
        precision: What it runs in, as `precision_of` has it.
        settings: Returns what brings images to it, and how, as JSON has it.
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
        """Return the key of an image's features, on which depends what else it is read with."""
        device = next(self._tower.parameters()).device.type
        settings = self.settings()
        return key_of("image", self._digest(), settings, self.precision, device, image.digest, *more)

    def find(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Return features [merged patches, D] and grid [3] of an image."""
        found = self.cache.get(key)
        return None if found is None else (found["features"], found["grid"])

    def keep(self, key: str, features: Tensor, grid: Tensor) -> None:
        """Keep what the tower made of an image."""
        if precision_of(features.device) == self.precision:
            self.cache.put(key, {"features": features, "grid": grid})

    def media(
        self, keys: Sequence[str], pixels: Callable[[list[int]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return what stands for images: pixels of those that aren't known, features of the others.

        These are `pixel_values` and `image_features` [tokens, D], where there are any, and `image_grid_thw`
        [images, 3], `image_is_known` [images] and `image_keys` [images, 32].

        Args:
            keys: Of one image or more.
            pixels: Returns `pixel_values` and `image_grid_thw` of images by their numbers; of none, nothing.
        """
        found = [self.find(key) for key in keys]
        new = dict(pixels([number for number, known in enumerate(found) if known is None]))
        grids = iter(new.pop("image_grid_thw", ()))
        features = [known[0] for known in found if known is not None]
        return {
            **new,
            **({"image_features": torch.cat(features)} if features else {}),
            "image_grid_thw": torch.stack([next(grids) if known is None else known[1] for known in found]),
            "image_is_known": torch.tensor([known is not None for known in found]),
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
        """Return the features [tokens, D] of each image; what the cache hasn't it gets.

        Args:
            media: What `media` returned, joined over comparisons.
            num_pixels: How many rows of `pixel_values` the images of some grids have.
            num_tokens: How many rows of features.
            tower: Makes features of the pixels and the grid [1, 3] of one image.
        """
        grids, is_known = media["image_grid_thw"], media["image_is_known"]
        pieces: dict[bool, Iterator[Tensor]] = {True: iter(()), False: iter(())}
        if "image_features" in media:
            pieces[True] = iter(torch.split(media["image_features"], num_tokens(grids[is_known]).tolist()))
        if "pixel_values" in media:
            pieces[False] = iter(torch.split(media["pixel_values"], num_pixels(grids[~is_known]).tolist()))
        found = []
        for key, grid, is_here in zip(
            keys_of_tensor(media["image_keys"]), grids, is_known.tolist(), strict=True
        ):
            features = next(pieces[is_here])
            if not is_here:
                # Alone, since its last digits could depend on what it is computed beside.
                features = tower(features, grid[None])
                self.keep(key, features, grid)
            found.append(features)
        return found


def keys_as_tensor(keys: Sequence[str]) -> Tensor:  # [images, 32]
    """Return keys as bytes, so that they can go the way of images."""
    return torch.tensor([list(bytes.fromhex(key)) for key in keys], dtype=torch.uint8).reshape(-1, 32)


def keys_of_tensor(keys: Tensor) -> list[str]:
    """Return what `keys_as_tensor` was given."""
    return [bytes(key).hex() for key in keys.tolist()]
