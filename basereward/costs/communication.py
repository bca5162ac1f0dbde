"""The bytes that the processes of a training send each other in a step."""

from __future__ import annotations

from typing import Any

from basereward.config.run import TrainConfig
from basereward.costs.accelerators import Accelerator
from basereward.costs.architecture import ORDER
from basereward.costs.memory import BF16, FP32, divided_weights

NODE = 8
"""GPUs of a machine, which are linked to each other."""

NETWORK_GB_S = 50.0
"""Network bandwidth of each GPU of a machine, GB a second: 400 Gbit/s, as is usual beside H100."""


def bandwidth(gpu: Accelerator, num_gpus: int) -> float:
    """Return the bytes a second that joint operations can reach (NCCL's bus bandwidth).

    All of a machine's network cards carry such an operation together, so that a GPU's link is about as narrow
    as they are.
    """
    network = NODE * NETWORK_GB_S if num_gpus > NODE else gpu.link_gb_s
    return 1e9 * min(gpu.link_gb_s, network)


def communication(
    model: Any, config: TrainConfig, *, num_ranks: int, num_passes: int, bf16: bool, tokens: float = 0
) -> float:
    """Return the bytes that each process receives in a step.

    Args:
        model: The reward model, with or without weights, its frozen parameters frozen.
        config: The training's settings.
        num_ranks: How many processes there are.
        num_passes: Forward passes of each in a step.
        bf16: Whether products are computed in bf16.
        tokens: Tokens of each pass, whose hidden states `tensor_ranks` sum.
    """
    if num_ranks == 1:
        return 0.0
    parts = model.part_parameters()
    every = [item for items in parts.values() for item in items if item.requires_grad]
    trained: int = sum(item.numel() for item in every)
    if config.parallel == "ddp":  # summed once a step: sent in parts, and brought together again
        return 2 * FP32 * trained * (num_ranks - 1) / num_ranks
    num_ranks //= config.tensor_ranks
    group = config.shard_ranks or num_ranks
    size = BF16 if bf16 else FP32
    divided = divided_weights(model, config.tensor_ranks)
    in_blocks = {item for block in model.backbone.blocks() for item in block.parameters()}
    gathered: int = 0
    is_reached = False
    for name in sorted(parts, key=lambda name: ORDER.index(name) if name in ORDER else 0):
        is_reached = is_reached or any(item.requires_grad for item in parts[name])
        for item in parts[name]:
            if item in in_blocks:  # brought together for each pass, forward and backward
                gathered += size * divided.get(item, item).numel() * (2 if is_reached else 1)
            else:
                gathered += item.element_size() * item.numel()
    trained = sum(divided.get(item, item).numel() for item in every)
    # Gradients are divided after each pass; among copies (HSDP) the parts are summed then.
    each_pass = (gathered + FP32 * trained) * (group - 1) / group
    copies = num_ranks // group
    among_copies = 2 * FP32 * trained / group * (copies - 1) / copies
    return num_passes * (each_pass + among_copies + _sums(model, config, tokens, size))


def _sums(model: Any, config: TrainConfig, tokens: float, size: int) -> float:
    """Return the bytes that each process receives in a pass to sum what `tensor_ranks` have computed.

    Of each module that gives summands, hidden states are summed, and later gradients, which are fp32; what
    is computed again is summed again.
    """
    ranks = config.tensor_ranks
    if ranks == 1:
        return 0.0
    num_sums = list(model.backbone.layer_divisions(ranks).values()).count("rows")
    forward = size * (2 if config.activation_checkpointing else 1)
    sent: float = num_sums * tokens * model.backbone.dim * (forward + FP32)
    return 2 * (ranks - 1) / ranks * sent
