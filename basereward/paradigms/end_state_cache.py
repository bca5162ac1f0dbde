"""Cache of a frozen backbone's hidden states at the responses' ends, for later epochs and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache, WeightsDigest, key_of, precision_of
from basereward.comparison import Comparison
from basereward.forest.forest import Forest
from basereward.hardware.transfer import moved
from basereward.protocols import Backbone


class Ends(NamedTuple):
    """The hidden states at the ends of a comparison's responses."""

    states: Tensor  # [N, D]
    lengths: Tensor  # [N] tokens of each response


class EndStateCache:
    """A cache of the end states of a frozen backbone.

    Args:
        cache: Stores them.
        backbone: The frozen backbone; it must have a fingerprint, and its settings must not change.
        precision: The precision it runs in, as `precision_of` returns it.
        reading: The name of the tokens at which responses are read; empty for the last ones.
    """

    def __init__(self, cache: FeatureCache, backbone: Backbone, precision: str, reading: str = "") -> None:
        self.cache = cache
        self.backbone = backbone
        self.precision = precision
        self.reading = [reading] if reading else []
        self._fingerprint = backbone.fingerprint()
        self._digest = WeightsDigest(backbone)

    def key(self, comparison: Comparison) -> str:
        """Return the key of a comparison's hidden states, of its content and all that reads it."""
        device = next(self.backbone.parameters()).device.type
        decides = [self._fingerprint, self._digest(), self.precision, device, *self.reading]
        return key_of("ends", *decides, comparison.prompt_identity(), comparison.responses)

    def get(self, key: str) -> Ends | None:
        """Return the cached states of a key; None where there are none."""
        tensors = self.cache.get(key)
        return None if tensors is None else Ends(tensors["states"], tensors["lengths"])

    def put(self, key: str, hidden: Tensor, forest: Forest) -> Ends:
        """Cache and return the end states of hidden states [B, L, D] of one comparison's forest."""
        ends = Ends(hidden.flatten(0, 1).index_select(0, forest.ends), forest.lengths)
        if precision_of(hidden.device) == self.precision and not self.backbone.training:
            self.cache.put(key, ends._asdict())
        return ends


def joined(ends: Sequence[Ends], device: torch.device) -> tuple[Tensor, Forest]:
    """Return hidden states [1, N, D], and their forest."""
    states = torch.cat([moved(one.states, device) for one in ends])
    lengths = torch.cat([moved(one.lengths, device) for one in ends])
    return states[None], Forest.of_ends(lengths, [len(one.lengths) for one in ends])
