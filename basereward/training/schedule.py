"""The learning rate schedule: warm-up, then cosine or linear decay, or a constant rate."""

from __future__ import annotations

import math

import torch

from basereward.config.run import TrainConfig


def schedule_factor(step: int, num_steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step, counted from 0, as a fraction of its peak.

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
    """Set each parameter group's rate to `factor` times its peak, and return the rate of each part."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
        rates[group["part"]] = group["lr"]
    return rates
