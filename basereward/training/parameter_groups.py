"""What is trained, how fast, and in which precision: parameter groups, schedule, gradient norm, autocast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from basereward.config.conversion import did_you_mean
from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.training.sharded_tensors import held

AMX_MIN_WIDTH = 256
"""Width of the hidden states from which bf16 pays on a CPU with AMX.

In a training step of a two-layer Llama on 8 x 100 tokens, on two cores of a Sapphire Rapids, bf16 was so many
times as fast as fp32: 0.35 at width 32, 0.41 at 64, 0.77 at 128, 1.63 at 256, 2.08 at 576. Below that, casts
cost more than the products save.
"""


def trainable_parts(
    parts: Mapping[str, Sequence[nn.Parameter]], config: TrainConfig
) -> dict[str, list[nn.Parameter]]:
    """Freeze what is to be frozen, and return the parameters of the other parts, each parameter once.

    Trained parameters become fp32 whatever they were: an update of 3e-6 vanishes in a bf16 weight's rounding.

    Raises:
        ConfigError: When `freeze` or `lr_parts` names no part of the model, when `lr_parts` names one that is
            frozen, or when nothing is left to train.
    """
    for key, names in (("train.freeze", config.freeze), ("train.lr_parts", tuple(config.lr_parts))):
        for name in names:
            if name not in parts:
                hint = did_you_mean(name, parts) or ";"
                raise ConfigError(f"{key}: the model has no part {name!r}{hint} parts: {', '.join(parts)}")
    seen: set[int] = set()
    trainable: dict[str, list[nn.Parameter]] = {}
    # Frozen parts first: a parameter that two parts share stays as the frozen one has it.
    for name in sorted(parts, key=lambda part: part not in config.freeze):
        own = [parameter for parameter in parts[name] if id(parameter) not in seen]
        seen.update(map(id, own))
        if name in config.freeze:
            for parameter in own:
                parameter.requires_grad_(False)
        # A backbone may have frozen some itself.
        if name not in config.freeze and not _may_train(own, name, config):
            raise ConfigError(
                f"train: the weights of part {name!r} are quantized and can't be trained; add adapters to it "
                "with [train.lora], or freeze it"
            )
        own = [parameter for parameter in own if parameter.requires_grad]
        for parameter in own:
            if parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
        if own:
            trainable[name] = own
    if not trainable:
        raise ConfigError(f"train.freeze leaves nothing to train; parts: {', '.join(parts)}")
    for name in config.lr_parts:
        if name not in trainable:
            raise ConfigError(f"train.lr_parts: part {name!r} is frozen, so it has no learning rate")
    return {name: trainable[name] for name in parts if name in trainable}


def _may_train(parameters: Sequence[nn.Parameter], name: str, config: TrainConfig) -> bool:
    is_plain = all(parameter.is_floating_point() for parameter in parameters)
    return is_plain or (config.lora is not None and name in config.lora.parts)


def schedule_factor(step: int, num_steps: int, config: TrainConfig) -> float:
    """Return what share of its peak the learning rate has in a step counted from 0.

    No step has a rate of zero: the warm-up begins at 1 / its length, and the decay would reach zero next.
    """
    warmup = round(config.warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(num_steps - warmup, 1)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Give each group its share of its peak, and return the rate of each part."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
        rates[group["part"]] = group["lr"]
    return rates


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


def computes_in_bf16(precision: str, device: torch.device, width: int) -> bool:
    """Tell whether matrix products are computed in bf16; `auto` takes it where it is faster.

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
