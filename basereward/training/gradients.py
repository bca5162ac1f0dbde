"""Gradients of a step: summed over micro-batches and processes, averaged and clipped once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from basereward.training.sharded_tensors import local_shard


@torch.no_grad()
def average_and_clip(
    parameters: Sequence[nn.Parameter],
    weight: Tensor,  # [] fp64, the sum of the weights of all pairs of the step
    clip_norm: float,
    *,
    world_size: int = 1,
) -> Tensor:
    """Turn summed gradients into those of the weighted mean, clip them, and return the norm before that.

    One multiplication does both, without a host-device synchronization.

    Args:
        parameters: Parameters; those without a gradient are left out.
        weight: Divides the sums.
        clip_norm: Largest norm; 0 for no clipping.
        world_size: Ranks over which DDP or FSDP2 has averaged the sums.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros_like(weight)
    # A batch of zero weight has zero gradients, which stay zero.
    scale = world_size / torch.where(weight > 0, weight, 1.0)
    norm = _total_norm(gradients).double() * scale
    if clip_norm > 0:
        scale = scale * (clip_norm / norm.clamp_min(clip_norm))
    shards = [local_shard(gradient)[0] for gradient in gradients]
    torch._foreach_mul_(shards, scale.to(shards[0].dtype))
    return norm


def _total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients; torch adds up those that are divided over the same processes."""
    by_mesh: dict[object, list[Tensor]] = {}
    for gradient in gradients:
        mesh = gradient.device_mesh if isinstance(gradient, DTensor) else None
        by_mesh.setdefault(mesh, []).append(gradient)
    totals = [torch.nn.utils.get_total_norm(some) for some in by_mesh.values()]
    norms = [total.full_tensor() if isinstance(total, DTensor) else total for total in totals]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def align_missing_gradients(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Make a missing gradient and a zero gradient the same to the optimizer.

    A parameter that a step does not use, such as the vision tower's where no row has an image, has no
    gradient in one process, but zeros where another rank might have used it; the optimizer would skip the one
    and update the other. So each parameter is updated from its first non-zero gradient on.
    """
    fresh = [parameter for parameter in parameters if not optimizer.state.get(parameter)]
    if len(fresh) < len(parameters):
        fresh_ids = set(map(id, fresh))
        for parameter in parameters:
            if parameter.grad is None and id(parameter) not in fresh_ids:
                parameter.grad = torch.zeros_like(parameter)
    gradients = [(parameter, parameter.grad) for parameter in fresh if parameter.grad is not None]
    if gradients:
        norms = [torch.linalg.vector_norm(gradient) for _, gradient in gradients]
        full_norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        for (parameter, _), norm in zip(gradients, torch.stack(full_norms).tolist(), strict=True):
            if norm == 0:
                parameter.grad = None
