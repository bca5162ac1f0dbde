"""One optimizer step: gradients of the summed loss, over forward passes and processes, divided once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from basereward.training import parallelize
from basereward.training.distributed import Ranks
from basereward.training.gradients import average_and_clip
from basereward.training.step_metrics import joined, row_of_nothing


class Updater:
    """Takes the steps of a training.

    Args:
        module: What `parallel.over_ranks` returned.
        parameters: Those that are trained.
        optimizer: Of these parameters.
        ranks: The processes.
        clip_norm: Largest norm of the gradient; 0 for no clipping.
        autocast: Returns the context in which the model runs.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        *,
        clip_norm: float,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.module, self.parameters, self.optimizer, self.ranks = module, parameters, optimizer, ranks
        self.clip_norm, self.autocast = clip_norm, autocast

    def add_up(
        self, passes: Sequence[Sequence[Any]], num_passes: int, spare: Any
    ) -> tuple[list[list[float]], float]:
        """Leave the gradient of the mean loss in the parameters, clipped; nothing is applied yet.

        Every forward pass adds the gradient of its summed loss; the sum of weights divides once at the end.
        So the result is the mean over all pairs of the step, however it was split up.

        Args:
            passes: The prepared comparisons of each forward pass of this process.
            num_passes: The largest number of passes that any process has: all go through as many.
            spare: A prepared comparison for a pass that adds nothing.

        Returns:
            The sums of each process, in the order of `row_of`, and the norm of the gradient.
        """
        rows = [row_of_nothing(self.ranks.device)]
        for number in range(num_passes):
            is_last = number == num_passes - 1
            is_idle = number >= len(passes)
            with nullcontext() if is_last else parallelize.without_joining(self.module):
                with self.autocast():
                    total, row = self.module([spare] if is_idle else passes[number])
                (total * 0.0 if is_idle else total).backward()
            if not is_idle:
                rows.append(row)
        self._settle_gradients()
        sums = self.ranks.gather_tensor(joined(rows))  # [processes, 2 + S]
        norm = average_and_clip(self.parameters, sums[:, 1].sum(), self.clip_norm, num_ranks=self.ranks.size)
        # The only wait for the device in a step; before the update, which must not spread what isn't finite.
        *flat, norm_value = torch.cat([sums.flatten(), norm[None]]).tolist()
        width = sums.shape[1]
        return [flat[start : start + width] for start in range(0, len(flat), width)], norm_value

    def _settle_gradients(self) -> None:
        """Let each parameter take part from the first step that has a gradient for it, in all of them.

        What a step doesn't use, such as the vision tower where no row has an image, has no gradient in one
        process, and zeros where another process might have used it. The optimizer would skip the one, and
        not the other.
        """
        fresh = [parameter for parameter in self.parameters if not self.optimizer.state.get(parameter)]
        if len(fresh) < len(self.parameters):
            known = set(map(id, fresh))
            for parameter in self.parameters:
                if parameter.grad is None and id(parameter) not in known:
                    parameter.grad = torch.zeros_like(parameter)
        given = [(parameter, parameter.grad) for parameter in fresh if parameter.grad is not None]
        if given:
            norms = [torch.linalg.vector_norm(gradient) for _, gradient in given]
            whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
            for (parameter, _), norm in zip(given, torch.stack(whole).tolist(), strict=True):
                if norm == 0:
                    parameter.grad = None

    def apply(self) -> None:
        """Change the parameters."""
        self.optimizer.step()
        self.optimizer.zero_grad()
