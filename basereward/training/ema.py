"""EMA: an exponential moving average of the trained weights, which is evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from basereward.training.sharded_tensors import local_shard


class EMA:
    """Averages of the trained parameters: fp32, on the parameters' devices, sharded as they are.

    Args:
        trained: Tensors by name; buffers among them, such as running means, are not averaged.
        decay: The weight of the average itself in a step; 0 switches averaging off.
    """

    def __init__(self, trained: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._weights: dict[str, Tensor] = {}
        if decay > 0:
            self._weights = {
                name: value for name, value in trained.items() if isinstance(value, nn.Parameter)
            }
        self.tensors = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._is_applied = False

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights.

        They start as the initial weights, which would dominate them for long; so the decay is no larger than
        (1 + step) / (10 + step).

        Args:
            step: The number of optimizer steps taken, 1 after the first.
        """
        if self._weights:
            decay = min(self.decay, (1 + step) / (10 + step))
            averages, weights = self._local()
            torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averages into the model; afterwards the weights are restored bit for bit.

        A nested context does nothing.
        """
        if self._is_applied:
            yield
            return
        self._swap()
        self._is_applied = True
        try:
            yield
        finally:
            self._is_applied = False
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # One tensor at a time, so that there is never a third copy of more than one.
        for average, weight in zip(*self._local(), strict=True):
            saved = weight.clone()
            weight.copy_(average)
            average.copy_(saved)

    def _local(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return averages and weights; of sharded ones this rank's shards."""
        averages = [local_shard(average)[0] for average in self.tensors.values()]
        return averages, [local_shard(weight.detach())[0] for weight in self._weights.values()]
