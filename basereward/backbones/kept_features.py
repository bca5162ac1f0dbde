"""What a frozen vision tower makes of single images, kept for later epochs and runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basereward.feature_cache import FeatureCache, WeightsDigest, key_of, precision_of
from basereward.media import Image


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

    def key(self, image: Image) -> str:
        """Return the key of an image's features."""
        device = next(self._tower.parameters()).device.type
        return key_of("image", self._digest(), self.settings(), self.precision, device, image.digest)

    def find(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Return features [merged patches, D] and grid [3] of an image."""
        found = self.cache.get(key)
        return None if found is None else (found["features"], found["grid"])

    def keep(self, key: str, features: Tensor, grid: Tensor) -> None:
        """Keep what the tower made of an image."""
        if precision_of(features.device) == self.precision:
            self.cache.put(key, {"features": features, "grid": grid})


def keys_as_tensor(keys: Sequence[str]) -> Tensor:  # [images, 32]
    """Return keys as bytes, so that they can go the way of pictures."""
    return torch.tensor([list(bytes.fromhex(key)) for key in keys], dtype=torch.uint8).reshape(-1, 32)


def keys_of_tensor(keys: Tensor) -> list[str]:
    """Return what `keys_as_tensor` was given."""
    return [bytes(key).hex() for key in keys.tolist()]
