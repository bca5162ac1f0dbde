"""The trained parameters of each part of a model, in fp32; the rest frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from basereward.config.conversion import did_you_mean
from basereward.config.run import RunConfig, TrainConfig
from basereward.errors import ConfigError


def trainable_parts(
    parts: Mapping[str, Sequence[nn.Parameter]], config: TrainConfig
) -> dict[str, list[nn.Parameter]]:
    """Freeze the parts in `freeze`, and return the trained parameters of the other parts, each once.

    Trained parameters are converted to fp32: an update of 3e-6 vanishes in a bf16 weight's rounding.

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
        parameters = [parameter for parameter in parts[name] if id(parameter) not in seen]
        seen.update(map(id, parameters))
        if name in config.freeze:
            for parameter in parameters:
                parameter.requires_grad_(False)
        # A backbone may have frozen some itself.
        if name not in config.freeze and not _is_trainable(parameters, name, config):
            raise _quantized_error(name)
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in parameters:
            if parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
        if parameters:
            trainable[name] = parameters
    if not trainable:
        raise ConfigError(f"train.freeze leaves nothing to train; parts: {', '.join(parts)}")
    for name in config.lr_parts:
        if name not in trainable:
            raise ConfigError(f"train.lr_parts: part {name!r} is frozen, so it has no learning rate")
    return {name: trainable[name] for name in parts if name in trainable}


def check_quantized(run: RunConfig) -> None:
    """Raise the error of `trainable_parts` for weights that are to be quantized when they are loaded."""
    is_quantized = run.backbone.options.get("quantize") is not None
    is_frozen = "language" in run.train.freeze
    has_adapters = run.train.lora is not None and "language" in run.train.lora.parts
    if is_quantized and not (is_frozen or has_adapters):
        raise _quantized_error("language")


def _quantized_error(part: str) -> ConfigError:
    return ConfigError(
        f"train: the weights of part {part!r} are quantized and can't be trained; add adapters to it with "
        "[train.lora], or freeze it"
    )


def _is_trainable(parameters: Sequence[nn.Parameter], name: str, config: TrainConfig) -> bool:
    is_plain = all(parameter.is_floating_point() for parameter in parameters)
    return is_plain or (config.lora is not None and name in config.lora.parts)
