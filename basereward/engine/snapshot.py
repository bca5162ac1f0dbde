"""All that decides how a training goes on: weights, moments of the optimiser, and random states."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from basereward.engine.checkpoints import CheckpointError

MODEL, OPTIMIZER, RANDOM = "model", "optimizer", "random"


def seed_everything(seed: int) -> None:
    """Seed the generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


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
    trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors of a checkpoint by file, and the random states that JSON holds."""
    moments = {
        f"{number}.{key}": value
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = numpy.random.get_state(legacy=True)
    words = [int(key) for key in keys]
    tensors = {MODEL: dict(trained), OPTIMIZER: moments, RANDOM: states}
    return tensors, {"python": random.getstate(), "numpy": [kind, words, *rest]}


@torch.no_grad()
def restore(
    directory: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    randoms: Mapping[str, Any],
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Set weights, moments and random states to those of a checkpoint.

    Raises:
        CheckpointError: When the checkpoint is of a model with other tensors.
    """
    saved = tensors[MODEL]
    for name in sorted({*saved, *trained}):
        if name not in saved or name not in trained or saved[name].shape != trained[name].shape:
            raise CheckpointError(
                f"{directory / MODEL}.safetensors is of another model: it differs in the tensor {name}"
            )
        trained[name].copy_(saved[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors[OPTIMIZER].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(tensors[RANDOM]["torch"])
    if torch.cuda.is_available() and "cuda" in tensors[RANDOM]:
        torch.cuda.set_rng_state(tensors[RANDOM]["cuda"])
    version, keys, gauss = randoms["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, *rest = randoms["numpy"]
    numpy.random.set_state((kind, numpy.array(words, dtype=numpy.uint32), *rest))
