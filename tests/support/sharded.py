"""What each process does in the tests of sharded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import runs
import tiny
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.config import Component
from basereward.errors import ModelError
from basereward.plugins import PluginManager
from basereward.training.distributed import ProcessGroup
from basereward.training.model_state import TrainedModel
from basereward.training.resolve import resolve_run
from basereward.training.seeding import seed_everything


def load_sharded(
    group: ProcessGroup, model: Path, backbone: dict[str, Any], settings: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], str, int]:
    """Return a sharded model's weights, joined again, its buffers, and how and how much of it was read."""
    kind = tiny.backbone_of(model.name.partition(" ")[0])
    run = resolve_run(
        runs.config(
            model / "run",
            model,
            model / "none",
            parallel="fsdp",
            **{"backbone": Component(kind, {"model": str(model), **backbone}), **settings},
        ),
        PluginManager(),
    )
    seed_everything(0)
    trained = TrainedModel(run, PluginManager(), group)
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in trained.paradigm.state_dict().items()
    }
    return weights, dict(trained.paradigm.named_buffers()), trained.loading, trained.num_bytes_read


def refused(group: ProcessGroup, model: Path) -> str:
    """Return the error that a sharded load ends with."""
    try:
        load_sharded(group, model, {}, {})
    except ModelError as error:
        return str(error)
    return ""
