"""The weights of a transformers model in the hub's files, written by several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from basereward.backbones.deferred_weights import INDEX, SINGLE

MAX_FILE_BYTES = 5 * 10**9
"""How large a file of weights gets at most, unless one tensor is larger."""


@dataclass(frozen=True)
class FilePlan:
    """The files that a model's weights are written to.

    Args:
        files: For each file, for each of its tensors the name that the model has for it.
        index: The index of the files as JSON; None for a single file.
    """

    files: Mapping[str, Mapping[str, str]]
    index: Mapping[str, Any] | None


def plan_files(model: Any, max_bytes: int = MAX_FILE_BYTES) -> FilePlan | None:
    """Return the files that transformers would write a model to, by the names and shapes of its tensors.

    Returns:
        None where a tensor of the files is not one of the model's, such as experts that are saved one by one.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers.core_model_loading import revert_weight_conversion

    unsaved = model._keys_to_ignore_on_save or ()
    shapes = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in model.state_dict().items()
        if name not in unsaved
    }
    names = {id(tensor): name for name, tensor in shapes.items()}
    saved = revert_weight_conversion(model, shapes)
    if {id(tensor) for tensor in saved.values()} != names.keys() or len(saved) != len(names):
        return None
    split = split_torch_state_dict_into_shards(
        saved, filename_pattern="model{suffix}.safetensors", max_shard_size=max_bytes
    )
    files = {
        file: {name: names[id(saved[name])] for name in of_file}
        for file, of_file in split.filename_to_tensors.items()
    }
    index = {
        "metadata": {"total_parameters": model.num_parameters(), **split.metadata},
        "weight_map": split.tensor_to_filename,
    }
    return FilePlan(files, index if split.is_sharded else None)


@dataclass(frozen=True)
class WrittenWeights:
    """A model's weights in files of a directory.

    Args:
        model: The transformers model.
        directory: Where the files are, on the file system that they will be moved within.
        plan: The files.
        digests: The SHA-256 of each.
    """

    model: Any
    directory: Path
    plan: FilePlan
    digests: Mapping[str, str] = field(default_factory=dict)

    def move_to(self, place: Path) -> None:
        """Write the model's configuration to a directory, and move its weights there."""
        self.model.save_pretrained(place, state_dict={})
        (place / SINGLE).unlink(missing_ok=True)  # some versions of transformers write one without tensors
        for name in self.plan.files:
            (self.directory / name).rename(place / name)
        if self.plan.index is not None:
            text = json.dumps(self.plan.index, indent=2, sort_keys=True) + "\n"
            (place / INDEX).write_text(text, encoding="utf-8")


_written: ContextVar[WrittenWeights | None] = ContextVar("written_weights", default=None)


@contextmanager
def written_weights(weights: WrittenWeights | None) -> Iterator[None]:
    """Have a model's weights moved instead of written, where it is saved in this thread."""
    token = _written.set(weights)
    try:
        yield
    finally:
        _written.reset(token)


def weights_of(model: Any) -> WrittenWeights | None:
    """Return a model's weights that are in files already; None where they are to be written."""
    weights = _written.get()
    return weights if weights is not None and weights.model is model else None
