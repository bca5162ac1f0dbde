"""Compiling the layers of a decoder, each by itself, with torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from basereward.errors import ConfigError
from basereward.hardware.precision import Precision
from basereward.protocols import Backbone


def compile_layers(backbone: Backbone, device: torch.device, precision: Precision) -> None:
    """Compile a backbone's layers for training.

    Raises:
        ConfigError: Where attention isn't one operator, or the backbone has no layers that can be compiled.
    """
    if device.type != "cuda" or precision.name != "bf16":
        raise ConfigError(
            f"train.compile is for GPUs in bf16, not {device.type} in {precision.name}: attention there is a "
            "call for each prompt and response, other ones in each batch; leave out compile"
        )
    blocks = backbone.blocks_to_compile()
    if not blocks:
        raise ConfigError(
            "train.compile: this backbone has no layers that can be compiled: those of decoders with forest "
            "attention can, all but the last; leave out compile"
        )
    compile_blocks(blocks)


def compile_blocks(blocks: Iterable[nn.Module], backend: str | Callable[..., object] = "inductor") -> None:
    """Have each block run compiled.

    Blocks of one class share their graphs: one for the first shape, one for all others, and as many again
    where there are no gradients. No module is wrapped, so tensor names stay. Call it before
    `checkpoint_activations`, which encloses the compiled block.

    Args:
        blocks: Modules such as decoder layers, none within another.
        backend: The compiler's.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
