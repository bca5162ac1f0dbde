"""FlashAttention as torch carries it for GPUs (arXiv 2307.08691): the varlen kernel of packed runs.

Shapes: n queries, m keys, w width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from basereward.forest.varlen_attention import Kernel, PackedBlock

MAX_WIDTH = 256
"""The widest head that the kernel takes."""


def packed_kernel(query: Tensor) -> Kernel[PackedBlock] | None:
    """Return the kernel that takes all runs of these queries [n, heads, w] in one call; None if none does.

    FlashAttention computes in half precision only. In fp32 each block is computed by matrix products instead:
    a cast would change rewards by what bf16 rounds off, where fp32 was asked for to avoid just that.
    """
    is_half = query.dtype in {torch.bfloat16, torch.float16}
    width = query.shape[-1]
    if not is_half or width % 8 or width > MAX_WIDTH or not _has_flash(query.device.type):
        return None
    return Flash


class Flash:
    """torch's FlashAttention, by operators whose positional arguments are the same since torch 2.10."""

    @staticmethod
    def split(blocks: Sequence[PackedBlock]) -> Sequence[PackedBlock]:
        """Return blocks as the kernel takes them."""
        return blocks

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, block: PackedBlock, scale: float
    ) -> tuple[Tensor, Tensor]:  # [n, heads, w], [heads, n] fp32
        """Return the output and the log-sum-exp of a block."""
        output, lse, *_ = torch.ops.aten._flash_attention_forward.default(
            query,
            key,
            value,
            block.query_starts,
            block.key_starts,
            block.max_queries,
            block.max_keys,
            0.0,  # dropout
            block.is_causal,
            False,  # no debugging mask
            scale=scale,
        )
        return output, lse

    @staticmethod
    def backward(
        grad_output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        lse: Tensor,
        block: PackedBlock,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a block's share of the gradients; see `Kernel`."""
        # The state of dropout's random numbers, which are not drawn.
        state = torch.zeros(2, dtype=torch.uint64, device=query.device)
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward.default(
            grad_output.contiguous(),
            query,
            key,
            value,
            output,
            lse.contiguous(),
            block.query_starts,
            block.key_starts,
            block.max_queries,
            block.max_keys,
            0.0,
            block.is_causal,
            state,
            query.new_empty(0),
            scale=scale,
        )
        return gradients


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash(device: str) -> bool:
    if device == "cuda":
        # GPUs before Ampere have no kernel.
        is_built = torch.backends.cuda.is_flash_attention_available()
        return is_built and torch.cuda.get_device_capability() >= (8, 0)
    return device == "meta"
