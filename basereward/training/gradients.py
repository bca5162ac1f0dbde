"""Gradients of a step: summed over micro-batches and processes, averaged and clipped once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from basereward.training.sharded_tensors import held


@torch.no_grad()
def average_and_clip(
    parameters: Sequence[nn.Parameter],
    weight: Tensor,  # [] fp64, the sum of weights that the gradients were added up over
    clip_norm: float,
    *,
    num_ranks: int = 1,
) -> Tensor:
    """Turn summed gradients into those of the weighted mean, clip them, and return their norm before that.

    One multiplication does both, and nothing waits for the device.

    Args:
        parameters: Whose gradients; those without one are left out.
        weight: What to divide by.
        clip_norm: Largest norm; 0 for no clipping.
        num_ranks: Processes over which DDP or FSDP2 has averaged the sums.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros_like(weight)
    # A batch of zero weight has zero gradients, which stay zero.
    scale = num_ranks / torch.where(weight > 0, weight, 1.0)
    total = torch.nn.utils.get_total_norm(gradients)
    norm = (total.full_tensor() if isinstance(total, DTensor) else total).double() * scale
    if clip_norm > 0:
        scale = scale * (clip_norm / norm.clamp_min(clip_norm))
    local = [held(gradient)[0] for gradient in gradients]
    torch._foreach_mul_(local, scale.to(local[0].dtype))
    return norm
