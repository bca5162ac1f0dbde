"""What each process does in the tests of sharded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import runs
import tiny
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.backbones import written_weights
from basereward.config import Component
from basereward.errors import ModelError
from basereward.plugins import PluginManager
from basereward.training import sharded_saving
from basereward.training.distributed import ProcessGroup
from basereward.training.model_state import TrainedModel
from basereward.training.resolve import resolve_run
from basereward.training.seeding import seed_everything


def trained_model(
    group: ProcessGroup, model: Path, backbone: dict[str, Any], settings: dict[str, Any]
) -> TrainedModel:
    """Return a model that is about to be trained."""
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
    return TrainedModel(run, PluginManager(), group)


def save_sharded(
    group: ProcessGroup, model: Path, settings: dict[str, Any], directory: Path, max_bytes: int
) -> list[str]:
    """Save a sharded model in files of a size, and return the names of the files that this process wrote."""
    written: list[str] = []
    save_file = sharded_saving.save_file

    def noted(tensors: Any, path: Path, **options: Any) -> None:
        written.append(path.name)
        save_file(tensors, path, **options)

    with (
        patch.object(written_weights, "MAX_FILE_BYTES", max_bytes),
        patch.object(sharded_saving, "save_file", noted),
    ):
        trained_model(group, model, {}, settings).save_model(directory, {})
    return written


def load_sharded(
    group: ProcessGroup, model: Path, backbone: dict[str, Any], settings: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], str, int]:
    """Return a sharded model's weights, joined again, its buffers, and how and how much of it was read."""
    trained = trained_model(group, model, backbone, settings)
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in trained.paradigm.state_dict().items()
    }
    return weights, dict(trained.paradigm.named_buffers()), trained.loading, trained.num_bytes_read


def refused(group: ProcessGroup, model: Path, settings: dict[str, Any]) -> str:
    """Return the error that a sharded load ends with."""
    try:
        load_sharded(group, model, {}, settings)
    except ModelError as error:
        return str(error)
    return ""
