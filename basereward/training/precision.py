"""Mixed precision: whether matrix products are computed in bf16, and the autocast context."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

AMX_MIN_WIDTH = 256
"""Width of the hidden states from which bf16 pays on a CPU with AMX.

In a training step of a two-layer Llama on 8 x 100 tokens, on two cores of a Sapphire Rapids, bf16 was so many
times as fast as fp32: 0.35 at width 32, 0.41 at 64, 0.77 at 128, 1.63 at 256, 2.08 at 576. Below that, casts
cost more than the products save.
"""


def computes_in_bf16(precision: str, device: torch.device, width: int) -> bool:
    """Return whether matrix products are computed in bf16; `auto` chooses the faster.

    Args:
        precision: `auto`, `fp32` or `bf16`.
        device: Where the model is.
        width: Of the hidden states.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The oldest torch that we accept doesn't have it.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return width >= AMX_MIN_WIDTH and bool(capabilities.get("amx_bf16"))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Return the context in which the model runs."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
