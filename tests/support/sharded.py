"""What each process does in the tests of sharded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import runs
import tiny
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.backbones import deferred_weights, written_weights
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, ModelError
from basereward.plugins import PluginManager
from basereward.training import sharded_saving
from basereward.training.distributed import ProcessGroup
from basereward.training.model_state import TrainedModel
from basereward.training.resolve import resolve_run
from basereward.training.seeding import seed_everything
from basereward.training.sharded_tensors import full_tensor


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
            **{
                "parallel": "fsdp",
                "backbone": Component(kind, {"model": str(model), **backbone}),
                **settings,
            },
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


def load_handed_out(
    group: ProcessGroup, model: Path, backbone: dict[str, Any], settings: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], str, int]:
    """Load a sharded model whose tensors transformers makes in a way that isn't known here."""
    with patch.object(deferred_weights, "composed", lambda *_: None):
        return load_sharded(group, model, backbone, settings)


def refused(group: ProcessGroup, model: Path, settings: dict[str, Any]) -> str:
    """Return the error that a sharded load ends with."""
    try:
        load_sharded(group.with_tensor_ranks(settings.get("tensor_ranks", 1)), model, {}, settings)
    except (ConfigError, ModelError) as error:
        return str(error)
    return ""


def trained_gradients(
    group: ProcessGroup, model: Path, comparisons: list[Comparison], settings: dict[str, Any]
) -> tuple[list[float], dict[str, Tensor]]:
    """Return the rewards of all comparisons, in order, and the gradients of their mean loss, joined again."""
    group = group.with_tensor_ranks(settings.get("tensor_ranks", 1))
    trained = trained_model(group, model, {}, {"clip_norm": 0, **settings})
    own = comparisons[group.data_rank :: group.num_data_ranks]
    prepared = [trained.paradigm.prepare(comparison) for comparison in own]
    rewards = [trained.module.score_of([item]).tolist() for item in prepared]
    trained.train()
    trained.accumulate_gradients([prepared], 1, prepared[0])
    gradients = {
        name: full_tensor(value.grad) if isinstance(value.grad, DTensor) else value.grad
        for name, value in trained.paradigm.named_parameters()
        if value.grad is not None
    }
    by_rank = group.by_data_rank(group.all_gather_objects(rewards))
    number = group.num_data_ranks
    return [by_rank[i % number][i // number] for i in range(len(comparisons))], gradients


def written_rewards(
    group: ProcessGroup, model: Path, comparisons: list[Comparison], settings: dict[str, Any]
) -> list[list[float]]:
    """Return the rewards of comparisons that the ranks share unevenly, and whose texts are written."""
    trained = trained_model(group, model, {}, settings)
    trained.eval()
    dummy = trained.paradigm.prepare(comparisons[0])
    # The first of two processes has one of them.
    parts = [comparisons] if group.world_size == 1 else [comparisons[:1], comparisons[1:]]
    own = parts[group.rank]
    with trained.module.join_uneven_inputs(group, dummy):
        rewards = [
            trained.module.score_of([trained.paradigm.prepare(comparison)]).tolist() for comparison in own
        ]
    return [found for of_rank in group.all_gather_objects(rewards) for found in of_rank]
