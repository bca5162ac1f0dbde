"""Models that are made without weights, and the places of their weights in the hub's files.

A process that holds a shard of a large model has no room for all of it. So the model is made on the meta
device, divided, and only then filled with the rows of this process; see `training.sharded_loading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from basereward.backbones.file_tensors import FileTensors, composed
from basereward.storage.reading import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class HubTensors:
    """The tensors of a model without weights, in files of the hub.

    Args:
        model: The transformers model, whose parameters have no memory.
        dtype: The type that weights are loaded in.
        sources: For each tensor of the model those of the files that it is made of.
        files: The files.
        obstacle: Why the tensors can't be read from the files one by one; empty where they can.
    """

    model: Any
    dtype: torch.dtype
    sources: Mapping[str, FileTensors]
    files: Sequence[Path]
    obstacle: str = ""


@dataclass
class DeferredWeights:
    """The models that were made without weights within `defer_weights`."""

    models: list[HubTensors] = field(default_factory=list)

    @property
    def obstacle(self) -> str:
        """Why some tensors can't be read from the files one by one; empty where all can."""
        return next((item.obstacle for item in self.models if item.obstacle), "")


_deferred: ContextVar[DeferredWeights | None] = ContextVar("deferred_weights", default=None)


@contextmanager
def defer_weights() -> Iterator[DeferredWeights]:
    """Make transformers models without weights in this thread, and note where their weights are."""
    deferred = DeferredWeights()
    token = _deferred.set(deferred)
    try:
        yield deferred
    finally:
        _deferred.reset(token)


def deferred_weights() -> DeferredWeights | None:
    """Return where a model that is made without weights is noted; None where it is to be loaded."""
    return _deferred.get()


def weight_files(source: Mapping[str, Any]) -> list[Path]:
    """Return the safetensors files of a transformers model, as its index names them; none where it has none.

    Args:
        source: The arguments by which transformers reads it; see `transformers_model.source_arguments`.
    """
    from transformers.utils import cached_file

    name = source["pretrained_model_name_or_path"]
    options = {
        "local_files_only": source["local_files_only"],
        "_raise_exceptions_for_missing_entries": False,
    }
    index = cached_file(name, INDEX, **options)
    names = [SINGLE] if index is None else sorted(set(read_json(Path(index))["weight_map"].values()))
    paths = [cached_file(name, file, **options) for file in names]
    return [Path(path) for path in paths if path is not None]


def hub_tensors(model: Any, source: Mapping[str, Any], ignorable: tuple[str, ...]) -> HubTensors:
    """Find each tensor of a model without weights in the files of its source, and compute its other buffers.

    Args:
        model: On the meta device, in the type that weights are loaded in.
        source: The arguments by which transformers reads its files.
        ignorable: Beginnings of the names of tensors that the files may hold beside the model's.
    """
    files = weight_files(source)
    sources, obstacle = _sources_in(files, model, ignorable)
    dtype = model.dtype
    if not obstacle and dtype != torch.float32 and model._get_dtype_plan(dtype):
        obstacle = "some of its weights are kept in fp32"
    uncomputed = _compute_buffers(model)
    return HubTensors(model, dtype, sources, files, obstacle or uncomputed)


def _sources_in(
    files: Sequence[Path], model: Any, ignorable: tuple[str, ...]
) -> tuple[dict[str, FileTensors], str]:
    """Return the tensors of files that each of a model's is made of by transformers, or an obstacle."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(model)
    renamings = [item for item in conversions if isinstance(item, WeightRenaming)]
    converters = [item for item in conversions if isinstance(item, WeightConverter)]
    tensors: dict[str, Tensor] = model.state_dict()
    shapes = _shapes(files)
    sources: dict[str, FileTensors] = {}
    patterns: dict[str, dict[str, str]] = {}  # of what a converter makes, by the names in the files
    for name in shapes:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, tensors)
        if renamed not in tensors and name in tensors:
            renamed, pattern = name, None
        if renamed not in tensors:
            if not renamed.startswith(ignorable):
                return {}, f"the files hold {name}, which the model doesn't"
        elif pattern is not None:
            patterns.setdefault(renamed, {})[name] = pattern
        elif renamed in sources:
            return {}, f"{renamed} is made of several tensors of the files"
        else:
            sources[renamed] = FileTensors(name)
    for name, matched in patterns.items():
        converter = next(item for item in converters if set(matched.values()) & set(item.source_patterns))
        made = composed(converter, matched, tensors[name].shape, shapes.__getitem__)
        if made is None or name in sources:
            return {}, f"{name} is made of several tensors of the files"
        sources[name] = made
    for name, source in sources.items():
        try:
            is_fitting = source.shape(shapes.__getitem__) == list(tensors[name].shape)
        except ValueError as error:
            return {}, f"{name} is made of {error}"
        if not is_fitting:
            return {}, f"{name} has another shape in the files"
    if missing := tensors.keys() - sources.keys():
        return {}, f"the files lack {min(missing)}"
    # By these transformers restores the names when it saves the model.
    model._weight_conversions = [item for item in conversions if item.was_used()]
    return sources, ""


def _shapes(files: Sequence[Path]) -> dict[str, list[int]]:
    """Return the shapes of all tensors of files."""
    shapes: dict[str, list[int]] = {}
    opened: Any
    for path in files:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                shapes[name] = opened.get_slice(name).get_shape()
    return shapes


@torch.no_grad()
def _compute_buffers(model: nn.Module) -> str:
    """Compute the buffers that are in no file, such as rotary frequencies; return an obstacle, if any."""
    obstacle = ""
    initialize: Any = model._init_weights
    module: Any
    for name, module in model.named_modules():
        buffers = {key: getattr(module, key) for key in module._non_persistent_buffers_set}
        buffers = {key: value for key, value in buffers.items() if value is not None}
        if not buffers:
            continue
        for key, value in buffers.items():
            # Marked, so that one that isn't computed is noticed.
            mark = torch.nan if value.is_floating_point() else torch.iinfo(value.dtype).min
            marked = torch.full(value.shape, mark, dtype=value.dtype, device="cpu")
            module.register_buffer(key, marked, persistent=False)
        with torch.device("cpu"):
            initialize(module)
        for key in buffers:
            value = getattr(module, key)
            is_marked = value.isnan() if value.is_floating_point() else value == torch.iinfo(value.dtype).min
            if bool(is_marked.any()):
                obstacle = f"the buffer {name}.{key} can't be computed alone"
    return obstacle
