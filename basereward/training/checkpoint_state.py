"""The tensors of a checkpoint: trained weights, their EMA, and the optimizer's state.

Random states are not among them: the generators are seeded anew for each step (`seeding`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from basereward.storage.reading import understood
from basereward.training import optimizers
from basereward.training.checkpoints import Checkpoint, CheckpointError

MODEL, EMA, OPTIMIZER = "model", "average", "optimizer"
"""The groups of tensors, and the names of their files."""


def trained_tensors(module: nn.Module, frozen: Collection[nn.Module]) -> dict[str, Tensor]:
    """Return the parameters and buffers that training changes, each tensor under the first of its names.

    Args:
        module: The whole model.
        frozen: Modules that are not trained; neither are their buffers.
    """
    frozen_buffers = {id(buffer) for part in frozen for buffer in part.buffers()}
    seen: set[int] = set()
    trained = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        is_parameter = isinstance(tensor, nn.Parameter)
        is_trained = tensor.requires_grad if is_parameter else id(tensor) not in frozen_buffers
        if is_trained and id(tensor) not in seen:
            seen.add(id(tensor))
            trained[name] = tensor
    return trained


def tensors_of(
    weights: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer
) -> dict[str, Mapping[str, Tensor]]:
    """Return the tensors of a checkpoint by group: weights and optimizer state."""
    return {**weights, OPTIMIZER: optimizers.state_of(optimizer)}


@torch.no_grad()
def restore(
    checkpoint: Checkpoint, weights: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Load weights and optimizer state from a checkpoint.

    Raises:
        CheckpointError: When it is of a model with other tensors.
    """
    for group, tensors in weights.items():
        saved = checkpoint.tensors(group)
        for name in sorted({*saved.names, *tensors}):
            if name not in saved.names or name not in tensors or saved.shape(name) != tensors[name].shape:
                path = checkpoint.directory / f"{group}.safetensors"
                raise CheckpointError(f"{path} is of another model: it differs in the tensor {name}")
            saved.copy_to(name, tensors[name])
    moments = checkpoint.tensors(OPTIMIZER)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[str, Tensor] = {}
    with understood(checkpoint.directory / f"{OPTIMIZER}.safetensors", CheckpointError):
        for name in moments.names:
            parameter = parameters[int(name.partition(".")[0])]
            # A tensor of the parameter's shape is sharded as the parameter is.
            if moments.shape(name) == parameter.shape:
                state[name] = torch.zeros_like(parameter)
                moments.copy_to(name, state[name])
            else:
                state[name] = moments.read(name)
        optimizers.load_state(optimizer, state)
