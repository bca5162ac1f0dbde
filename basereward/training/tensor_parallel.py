"""Tensor parallelism: processes that divide each layer of a decoder, heads and columns of the MLP.

Each of them computes its heads, and its columns of the MLP, from the whole hidden states; what it adds to
the output is summed over all. So a layer has two sums forward, and two of the gradient backward
(arXiv 1909.08053).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard, distribute_tensor

from basereward.protocols import Backbone


def divide_layers(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Divide a backbone's layers among the processes of a mesh of one axis.

    Weights become `DTensor`s of their full shape, of which each process keeps its part; names of tensors
    stay. Call it before `fully_shard`, which shards the parts.

    Args:
        backbone: With its weights, or on the meta device.
        mesh: The processes; each is given the same inputs.

    Raises:
        ConfigError: When its layers can't be divided among so many.
    """
    divisions = backbone.layer_divisions(mesh.size())
    group = mesh.get_group()
    parents = {child: module for module in backbone.modules() for child in module.children()}
    entered: set[nn.Module] = set()
    for module, division in divisions.items():
        if division == "heads":
            module.forward = partial(_of_own_heads, module, module.forward, group)
            continue
        _divide(module, "weight", mesh, Shard(0 if division == "columns" else 1))
        if division == "rows":
            module.forward = partial(_summed, module, group)
            continue
        if module.bias is not None:
            _divide(module, "bias", mesh, Shard(0))
        module.forward = partial(_own_columns, module)
        # Once for all the products that read the same hidden states.
        if (parent := parents[module]) not in entered:
            entered.add(parent)
            parent.register_forward_pre_hook(partial(_enter, group), with_kwargs=True)


def _divide(module: nn.Module, name: str, mesh: DeviceMesh, placement: Placement) -> None:
    full = module.get_parameter(name)
    # Each process has the same weights, so none is sent.
    divided = distribute_tensor(full.detach(), mesh, [placement], src_data_rank=None)
    setattr(module, name, nn.Parameter(divided, requires_grad=full.requires_grad))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _own_columns(module: Any, hidden: Tensor) -> Tensor:
    bias = None if module.bias is None else _local(module.bias)
    return nn.functional.linear(hidden, _local(module.weight), bias)


def _summed(module: Any, group: dist.ProcessGroup, hidden: Tensor) -> Tensor:
    summand = nn.functional.linear(hidden, _local(module.weight))
    total: Tensor = _Sum.apply(summand, group)  # type: ignore[no-untyped-call]
    return total if module.bias is None else total + module.bias.to(total.dtype)


def _of_own_heads(
    module: nn.Module, forward: Callable[..., Any], group: dist.ProcessGroup, *args: Any
) -> Any:
    # While it runs, its weights are ones whose gradients are summed: each process has those of its heads.
    parameters = vars(module)["_parameters"]
    weights = dict(parameters)
    parameters.update({name: _with_summed_gradient(weight, group) for name, weight in weights.items()})
    try:
        return forward(*args)
    finally:
        parameters.update(weights)


def _enter(
    group: dist.ProcessGroup, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Have the gradient of a module's hidden states summed: each process computes a summand of it."""
    if args:
        hidden, *others = args
        return (_with_summed_gradient(hidden, group), *others), options
    hidden = _with_summed_gradient(options["hidden_states"], group)
    return args, {**options, "hidden_states": hidden}


def _with_summed_gradient(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    same: Tensor = _SumOfGradients.apply(tensor, group)  # type: ignore[no-untyped-call]
    return same


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors, of which each has the whole gradient already."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        # In place: a product's backward pass doesn't need its result.
        ctx.mark_dirty(tensor)
        dist.all_reduce(tensor, group=group)
        return tensor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


class _SumOfGradients(torch.autograd.Function):
    """The tensor that all processes have, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None
