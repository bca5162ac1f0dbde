"""Load a model that no process has room for: make it without weights, shard it, then read each shard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from basereward.backbones.deferred_weights import HubTensors, defer_weights
from basereward.config.run import RunConfig
from basereward.errors import ConfigError
from basereward.scoring.reward_model import RewardModel
from basereward.training.distributed import ProcessGroup
from basereward.training.sharded_tensors import ShardedReader, local_shard, part_of


def whole_reason(run: RunConfig) -> str:
    """Return why each process of a run that shards its model has to read all weights; empty for no reason."""
    if run.train.lora is not None:
        return "adapters are added to weights that are there"
    if run.backbone.options.get("quantize") is not None:
        return "weights are quantized as they are read"
    if run.paradigm.name != "scalar":
        return f"the paradigm {run.paradigm.name} has a language-model head beside the backbone"
    return ""


class ShardedLoading:
    """A reward model without its backbone's weights, which `fill` reads once the model is sharded.

    Each process reads its own rows of the files; of experts that lie there one by one, its own. Where
    transformers' conversion rules do more than to rename, stack and transpose, the main process loads the
    model and hands out the rows.

    Args:
        build: Builds the model; called once on each process, and a second time on the main process where that
            one has to load it.
        group: The process group.

    Attributes:
        model: The model, on the meta device except for what is not transformers'.
        description: The way it is loaded, for people.
        num_bytes_read: Bytes of tensors that this process has read of the files itself.

    Raises:
        ModelError: On all ranks, when the files lack a tensor, or hold one of another shape.
    """

    def __init__(self, build: Callable[[], RewardModel], group: ProcessGroup) -> None:
        with defer_weights() as deferred:
            self.model = build()
        self._group, self._deferred = group, deferred
        self._whole: dict[str, Tensor] = {}
        self.description, self.num_bytes_read = "", 0
        if deferred.obstacle:
            self._load_on_main(build)
            self.description = (
                f"the main process reads all weights and hands out the rows: {deferred.obstacle}"
            )

    @property
    def transformers_model(self) -> Any:
        """The transformers model that was made without weights; None where there is none, or several."""
        models = [item.model for item in self._deferred.models]
        return models[0] if len(models) == 1 else None

    def _load_on_main(self, build: Callable[[], RewardModel]) -> None:
        def load() -> dict[str, torch.dtype]:
            whole = build().backbone
            self._whole = _state(whole)
            for name, module in self.model.backbone.named_modules():
                if any(module is item.model for item in self._deferred.models):
                    # By these transformers restores the names when it saves the model.
                    conversions = vars(whole.get_submodule(name)).get("_weight_conversions")
                    vars(module)["_weight_conversions"] = conversions
            return {name: tensor.dtype for name, tensor in self._whole.items()}

        dtypes = self._group.on_main(load)
        for name, tensor in _state(self.model.backbone).items():
            if tensor.is_meta:
                tensor.data = tensor.data.to(dtypes[name])

    @torch.no_grad()
    def fill(self) -> None:
        """Give each tensor its memory, on the group's device, and this process's rows of its values."""
        if self._deferred.obstacle:
            self._receive()
        else:
            self.num_bytes_read = sum(_read(item, self._group.device) for item in self._deferred.models)
            total = sum(path.stat().st_size for item in self._deferred.models for path in item.files)
            if total:
                self.description = (
                    f"each process reads its own rows of the weights: this one "
                    f"{self.num_bytes_read / 1e6:,.1f} of {total / 1e6:,.1f} MB"
                )
        self._whole.clear()
        empty = sorted(name for name, tensor in _state(self.model.paradigm).items() if tensor.is_meta)
        if empty:
            raise ConfigError(
                f"train.parallel is 'fsdp', and {empty[0]} is made without weights, which the backbone "
                'doesn\'t expect; use "ddp"'
            )

    def _receive(self) -> None:
        """Take this process's rows of what the main process loaded, and the buffers beside them."""
        backbone, device = self.model.backbone, self._group.device
        filled: dict[str, Tensor] = {}
        for name, target in _state(backbone).items():
            full = self._whole.pop(name) if self._group.is_main else torch.empty(target.shape, device=device)
            full = full.detach().to(device, target.dtype)
            dist.broadcast(full, 0)
            if isinstance(target, DTensor):
                part = part_of(full, *local_shard(target.detach()))
                filled[name] = _like(target, part.clone())
            elif target.is_meta:
                filled[name] = full
            else:
                target.copy_(full)
        backbone.load_state_dict(filled, strict=False, assign=True)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name, also the buffers that are in no file."""
    return {**dict(module.named_buffers()), **module.state_dict(keep_vars=True)}


def _read(tensors: HubTensors, device: torch.device) -> int:
    """Read this process's rows of a model's tensors, and return the number of bytes read."""
    reader = ShardedReader({path: {} for path in tensors.files})
    filled: dict[str, Tensor] = {}
    for name, target in tensors.model.state_dict(keep_vars=True).items():
        if not target.is_meta:
            continue
        shard, position = local_shard(target.detach())
        read = tensors.sources[name].read(
            None if position is None else slice(position.first, position.first + len(shard)),
            shard.shape,
            reader.read,
            partial(reader.read_part, position=position),
        )
        # As a whole model is loaded: in the backbone's `dtype`, of which a trained weight is an fp32 copy.
        local = read.to(tensors.dtype).to(device, target.dtype, copy=True)
        filled[name] = _like(target, local) if isinstance(target, DTensor) else local
    tensors.model.load_state_dict(filled, strict=False, assign=True)
    return reader.num_bytes


def _like(target: DTensor, local: Tensor) -> DTensor:
    """Return this process's shard as a tensor that is divided as `target` is."""
    return DTensor.from_local(
        local,
        target.device_mesh,
        target.placements,
        run_check=False,
        shape=target.shape,
        stride=target.stride(),
    )
