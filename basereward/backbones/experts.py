"""Mixtures of experts under autocast: their products in its type, as those of linear layers are.

transformers keeps a layer's experts in tensors of three axes and multiplies by `grouped_mm`, which autocast
does not know: with weights in fp32 most of the model would be computed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd


def autocast_experts(model: nn.Module) -> None:
    """Have the experts of a model follow an autocast around them.

    Args:
        model: Each of its modules that holds parameters of three axes itself has experts; convolutions, which
            autocast knows, aside.
    """
    for module in model.modules():
        weights = module.parameters(recurse=False)
        if not isinstance(module, _ConvNd) and any(weight.ndim == 3 for weight in weights):
            module.forward = partial(_forward, module, module.forward)


def _forward(
    module: nn.Module, forward: Callable[..., Any], hidden: Tensor, *args: Any, **options: Any
) -> Any:
    device = hidden.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return forward(hidden, *args, **options)
    dtype = torch.get_autocast_dtype(device)
    weights = {
        name: weight.to(dtype)
        for name, weight in module.named_parameters(recurse=False)
        if weight.dtype == torch.float32
    }
    if not weights:  # in the type already, as within the call below, or where FSDP has gathered them in it
        return forward(hidden, *args, **options)
    return functional_call(module, weights, (hidden, *args), options)
