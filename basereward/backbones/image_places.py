"""The places of images' features among a forest's tokens, known before the device computes anything.

Shapes: B rows, L tokens in a row, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

READ_ON_CPU = frozenset({"image_grid_thw", "video_grid_thw", "image_is_cached", "image_keys"})
"""Names of media that say how many and which, and are read as numbers."""


def places_of(input_ids: Tensor, tokens: Sequence[int]) -> Tensor:  # [B, L] -> [2, features]
    """Return rows and columns of tokens that stand for features, those of the first token first.

    Padding at the ends of rows moves none of them.
    """
    return torch.cat([(input_ids == token).nonzero().T for token in tokens], dim=1)


def put_at(
    states: Tensor,  # [B, L, D]
    places: Tensor,  # [2, n] rows and columns, each pair once
    features: Tensor,  # [n, D]
) -> Tensor:  # [B, L, D]
    """Return states with features in their places."""
    # Not in a view of all rows as one: compiled layers have another graph for an input that is a view.
    return states.index_put((places[0], places[1]), features.to(states.dtype))


def add_at(
    states: Tensor,  # [B, L, D]
    places: Tensor,  # [2, n] rows and columns, each pair once
    features: Tensor,  # [n, D]
) -> Tensor:  # [B, L, D]
    """Return states with features added in their places."""
    flat = places[0] * states.shape[1] + places[1]
    return put_at(states, places, states.flatten(0, 1).index_select(0, flat) + features.to(states.dtype))
