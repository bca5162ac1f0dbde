"""Compiling the layers of a decoder, each by itself, with torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn


def compile_blocks(blocks: Iterable[nn.Module], backend: str | Callable[..., object] = "inductor") -> None:
    """Have each block run compiled.

    Blocks of one class share their graphs: one for the first shape, and one for all others. No module is
    wrapped, so tensor names stay. Call it before `checkpoint_activations`, which encloses the compiled block.

    Args:
        blocks: Modules such as decoder layers, none within another.
        backend: The compiler's.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
