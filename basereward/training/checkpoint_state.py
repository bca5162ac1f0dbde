"""The tensors of a checkpoint: trained weights, their EMA, and the optimizer's state.

Random states are not among them: the generators are seeded anew for each step (`seeding`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from basereward.training import optimizers
from basereward.training.checkpoints import Checkpoint, CheckpointError

MODEL, AVERAGE, OPTIMIZER = "model", "average", "optimizer"


def trained_tensors(module: nn.Module, frozen: Collection[nn.Module]) -> dict[str, Tensor]:
    """Return the parameters and buffers that training changes, each tensor under the first of its names.

    Args:
        module: The whole model.
        frozen: Modules that are not trained, whose buffers stay as they are too.
    """
    still = {id(buffer) for part in frozen for buffer in part.buffers()}
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        changes = tensor.requires_grad if isinstance(tensor, nn.Parameter) else id(tensor) not in still
        if changes and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def capture(
    weights: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer
) -> dict[str, Mapping[str, Tensor]]:
    """Return the tensors of a checkpoint by group: those of the model, and the optimizer's."""
    return {**weights, OPTIMIZER: optimizers.state_of(optimizer)}


@torch.no_grad()
def restore(
    checkpoint: Checkpoint, weights: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Set weights and moments to those of a checkpoint.

    Raises:
        CheckpointError: When the checkpoint is of a model with other tensors.
    """
    for group, tensors in weights.items():
        saved = checkpoint.tensors(group)
        for name in sorted({*saved.names, *tensors}):
            if name not in saved.names or name not in tensors or saved.shape(name) != tensors[name].shape:
                place = checkpoint.directory / f"{group}.safetensors"
                raise CheckpointError(f"{place} is of another model: it differs in the tensor {name}")
            saved.fill(name, tensors[name])
    moments = checkpoint.tensors(OPTIMIZER)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found: dict[str, Tensor] = {}
    for name in moments.names:
        parameter = parameters[int(name.partition(".")[0])]
        # What has a parameter's shape is divided among processes as the parameter is.
        if moments.shape(name) == parameter.shape:
            found[name] = torch.zeros_like(parameter)
            moments.fill(name, found[name])
        else:
            found[name] = moments.read(name)
    optimizers.load_state(optimizer, found)
