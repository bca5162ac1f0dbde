"""An exponential moving average of the trained weights, which is evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from basereward.training.sharded_tensors import held


class WeightAverage:
    """The averages, fp32, on the weights' devices and divided among processes as they are.

    Args:
        trained: Tensors by name; those that aren't parameters, such as running means, are left as they are.
        decay: How much of itself an average keeps in a step; 0 for no averages, and nothing is done then.
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

        They begin as the first weights, which would weigh on them for long; so a step keeps no more than
        (1 + step) / (10 + step) of them.

        Args:
            step: Optimizer steps that are done, 1 after the first.
        """
        if self._weights:
            kept = min(self.decay, (1 + step) / (10 + step))
            averages, weights = self._local()
            torch._foreach_lerp_(averages, weights, 1 - kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the weights' places; after it the weights are what they were, bit for bit.

        Within another such context it does nothing.
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
        # One by one, so that there is never a third copy of more than one tensor.
        for average, weight in zip(*self._local(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _local(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return averages and weights, of sharded ones what this process holds."""
        averages = [held(average)[0] for average in self.tensors.values()]
        return averages, [held(weight.detach())[0] for weight in self._weights.values()]
