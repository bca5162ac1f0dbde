"""The device that a model runs on, and the precision of its matrix products there.

Both are settings with one meaning in training and in scoring. `auto` takes the GPU where there is one, and
bf16 where the device multiplies bf16 matrices fast. Heads and losses are computed in fp32 in any case.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from basereward.errors import ConfigError
from basereward.hardware.processor import bf16_support

Setting = Literal["auto", "fp32", "bf16"]
SETTINGS = ("auto", "fp32", "bf16")

MIN_WIDTH = 256
"""Width of the hidden states from which `auto` takes bf16 on a CPU that multiplies it fast.

In a training step of a two-layer Llama on 8 x 100 tokens bf16 was so many times as fast as fp32 at widths
32, 64, 128, 256 and 576: 0.35, 0.41, 0.77, 1.63 and 2.08 on two cores of a Sapphire Rapids (AMX), 0.60,
0.85, 1.36, 2.15 and 2.53 on one core of an AMD EPYC with AVX-512 BF16, which scores 0.86, 1.19, 2.79, 2.35
and 3.34 times as fast. Below, casts cost more than the products save.
"""

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Precision:
    """The precision of a model's matrix products, and why it was chosen.

    Args:
        name: `fp32`, `bf16`, or `fp16` where the weights are and stay fp16.
        reason: Why.
        device: The type of the device: `cpu`, `cuda`.
        warning: Why the choice is a bad one; empty where it isn't.
    """

    name: Literal["fp32", "bf16", "fp16"] = "fp32"
    reason: str = "default"
    device: str = "cpu"
    warning: str = ""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the backbone runs."""
        return torch.autocast(self.device, torch.bfloat16) if self.name == "bf16" else nullcontext()

    @property
    def cache_key(self) -> str:
        """The precision as `precision_of` tells feature caches of it while the context is on."""
        return str(torch.bfloat16) if self.name == "bf16" else "weights"

    def to_dict(self) -> dict[str, str]:
        """Return what logs, reports and model directories record."""
        return {"device": self.device, "precision": self.name, "reason": self.reason}

    def __str__(self) -> str:
        return f"on {self.device} in {self.name} ({self.reason})"


def device_of(name: str = "auto") -> torch.device:
    """Return a device by its name; `auto` is this process's GPU, or the CPU where there is none.

    Raises:
        ConfigError: When there is no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        rank = int(os.environ.get("LOCAL_RANK", "-1"))
        return torch.device("cuda", rank) if 0 <= rank < torch.cuda.device_count() else torch.device("cuda")
    if name == "auto":
        return torch.device("cpu")
    try:
        # A device that isn't there is found out only when something is put on it.
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name}: {reason}; write auto, cpu, cuda or cuda:1") from error
    return device


def training_precision(setting: str, device: torch.device, width: int) -> Precision:
    """Return the precision of a training, whose weights are fp32.

    Args:
        setting: `auto`, `fp32` or `bf16`.
        device: Where the model is.
        width: Of the hidden states.

    Raises:
        ConfigError: When the setting is another.
    """
    _check(setting)
    if setting == "fp32":
        return Precision("fp32", "precision = 'fp32'", device.type)
    support = bf16_support(device)
    if setting == "bf16":
        warning = ""
        if not support.is_fast:
            warning = (
                f"precision = 'bf16' is slower than fp32 here: {support.reason}; 'auto' chooses the faster, "
                "and basereward doctor prints both speeds"
            )
        return Precision("bf16", "precision = 'bf16'", device.type, warning)
    if not support.is_fast:
        return Precision("fp32", f"auto: {support.reason}", device.type)
    if device.type == "cpu" and width < MIN_WIDTH:
        reason = f"auto: hidden states are {width} wide, and bf16 pays from {MIN_WIDTH} on a CPU"
        return Precision("fp32", reason, device.type)
    return Precision("bf16", f"auto: {support.reason}", device.type)


def weights_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of most of a module's weights; fp32 where there are none."""
    counts: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        counts[parameter.dtype] += parameter.numel()
    return counts.most_common(1)[0][0] if counts else torch.float32


def scoring_precision(
    setting: str | None, device: torch.device, width: int, weights: torch.dtype = torch.float32
) -> Precision:
    """Return the precision of a model that scores.

    Without a setting it is `auto` on a GPU and where the weights are saved in half precision, and else fp32:
    on CPUs the same model then gives the same rewards to 1e-5, whichever instructions they have.

    Args:
        setting: `auto`, `fp32`, `bf16`, or None.
        device: Where the model is.
        width: Of the hidden states.
        weights: The dtype of the backbone's weights, which products have where nothing casts them.

    Raises:
        ConfigError: When the setting is another.
    """
    if setting is None and device.type == "cpu" and weights not in HALVES:
        return Precision("fp32", "default on a CPU", device.type)
    setting = setting or "auto"
    if setting == "auto" and weights == torch.float16:
        name: Literal["fp32", "fp16"] = "fp32" if device.type == "cpu" else "fp16"
        return Precision(name, "auto: the weights are fp16", device.type)
    # Weights in bf16 need no cast, which is what makes it slow in narrow models.
    return training_precision(setting, device, MIN_WIDTH if weights == torch.bfloat16 else width)


def _check(setting: str) -> None:
    if setting not in SETTINGS:
        raise ConfigError(f"precision is {setting!r}; allowed: {', '.join(SETTINGS)}")
