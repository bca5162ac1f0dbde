"""Activation checkpointing: drop the activations of a layer, and recompute them in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(blocks: Iterable[nn.Module]) -> None:
    """Have each block keep only its inputs for the backward pass (arXiv 1604.06174).

    Gradients are the same bit for bit: random numbers, such as dropout's, are drawn again. No module is
    wrapped, so tensor names stay, and other hooks, such as FSDP2's, enclose the whole block.

    Args:
        blocks: Modules such as decoder layers, none within another.
    """
    for block in blocks:
        block.forward = partial(_forward, block.forward)


def _forward(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **options)
    return checkpoint(forward, *args, use_reentrant=False, **options)
