"""Optimizers by name, with a learning rate for each part, and their state as tensors for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.hub_kernels import import_bitsandbytes
from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.extras import install_command


def build(trainable: Mapping[str, Sequence[nn.Parameter]], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a run; biases and norms (tensors of one axis) have no weight decay.

    Raises:
        ConfigError: When its library isn't installed.
    """
    groups = []
    for name, parameters in trainable.items():
        peak = config.lr_parts.get(name, config.lr)
        for decays in (True, False):
            group = [parameter for parameter in parameters if (parameter.ndim >= 2) == decays]
            if group:
                decay = config.weight_decay if decays else 0.0
                rates = {"lr": peak, "peak": peak, "weight_decay": decay}
                groups.append({"params": group, "part": name, **rates})
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(groups)
    if config.optimizer == "adamw-8bit":
        eight_bit: torch.optim.Optimizer = _adamw_8bit()(groups, betas=config.betas)
        return eight_bit
    return torch.optim.AdamW(groups, betas=config.betas, fused=True)


def check_installed(config: TrainConfig) -> None:
    """Raise a ConfigError where the library of a run's optimizer is not installed."""
    if config.optimizer == "adamw-8bit":
        _adamw_8bit()


def _adamw_8bit() -> Any:
    try:
        import_bitsandbytes()
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"train.optimizer is 'adamw-8bit', which needs bitsandbytes ({error}); "
            f"{install_command('quantized')}"
        ) from error
    return AdamW8bit


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of each parameter as tensors named `NUMBER.KEY`, in the order of the groups."""
    state: dict[str, Tensor] = {}
    tables: set[int] = set()
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            # The parameters of the 8-bit optimizer share a table of values, which safetensors refuses.
            if key.startswith("qmap"):
                tensor = tensor.clone() if id(value) in tables else tensor
                tables.add(id(value))
            state[f"{number}.{key}"] = tensor
    return state


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Load the state that `state_of` returned; learning rates stay as they are."""
    numbered: dict[int, dict[str, Any]] = {}
    for name, tensor in state.items():
        number, _, key = name.partition(".")
        is_plain = key == "step" and not tensor.is_floating_point()
        numbered.setdefault(int(number), {})[key] = int(tensor) if is_plain else tensor
    for values in numbered.values():
        if "absmax1" in values:  # the moments are bytes, whatever type they were loaded as
            values |= {key: values[key].to(torch.uint8) for key in ("state1", "state2")}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": numbered, "param_groups": groups})


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
