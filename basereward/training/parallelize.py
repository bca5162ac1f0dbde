"""Parallel training: DDP (a replica on each rank), FSDP2 (shards) and HSDP (shards within groups)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.protocols import Paradigm
from basereward.training.distributed import ProcessGroup
from basereward.training.sharded_tensors import TENSOR_AXIS, full_tensor
from basereward.training.step_metrics import sums_of
from basereward.training.tensor_parallel import divide_layers


class ParadigmModule(nn.Module):
    """A paradigm as a module with a single `forward`, which DDP and FSDP2 attach their hooks to."""

    def __init__(self, paradigm: Paradigm) -> None:
        super().__init__()
        self.paradigm = paradigm

    def forward(self, batch: Sequence[Any], *, scores: bool = False, passes: bool = False) -> Any:
        """Return summed loss [] and metric sums [2 + S] of prepared comparisons, or their rewards [N].

        With `passes`, the hidden states of one pass through the backbone, which nobody reads.
        """
        if passes:
            backbone = self.paradigm.backbone
            forest = backbone.pack([backbone.encode(item.comparison) for item in batch])
            return backbone(forest.to(next(self.parameters()).device))
        if scores:
            return self.paradigm.score_of(batch)
        output = self.paradigm.loss_of(batch)
        return output.loss * output.weight, sums_of(output)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Any]) -> Tensor:  # [N]
        """Return the rewards of prepared comparisons."""
        rewards: Tensor = self(batch, scores=True)
        return rewards

    @contextmanager
    def join_uneven_inputs(self, group: ProcessGroup, dummy: Any) -> Iterator[None]:
        """Let each rank call `score_of` as often as it needs to, and write texts as long as they get.

        FSDP forward passes are collective: a rank that has no inputs left runs dummy passes until every rank
        is done. Passes through the backbone are what counts: writing takes one for each token.

        Args:
            group: The process group.
            dummy: A prepared comparison for the dummy passes.
        """
        if not isinstance(self, FSDPModule):
            yield
            return
        # What is in no block is gathered now, on all ranks at once, and not by each one's first pass.
        self.unshard()
        joined = self.paradigm.backbone.register_forward_pre_hook(lambda *_: _all_gather_busy(group))
        try:
            yield
        finally:
            joined.remove()
        with torch.no_grad():
            while any(is_busy for [is_busy] in group.all_gather_ints([0])):
                self([dummy], passes=True)


def _all_gather_busy(group: ProcessGroup) -> None:
    group.all_gather_ints([1])


def parallelize(module: ParadigmModule, group: ProcessGroup, config: TrainConfig, *, bf16: bool) -> nn.Module:
    """Return the module to train: wrapped in DDP, sharded in place by FSDP2, or as it is on a single rank.

    Args:
        module: On its device, its frozen parameters frozen.
        group: The process group.
        config: `parallel` and `shard_ranks`; `tensor_ranks` is the group's.
        bf16: Whether matrix products are computed in bf16.

    Raises:
        ConfigError: When the number of ranks can't be divided by `shard_ranks`.
    """
    if group.world_size == 1:
        return module
    # A rank whose comparisons have no image must still take part in the collectives of the vision tower.
    module.paradigm.backbone.always_runs_vision = True
    if config.parallel == "fsdp":
        apply_fsdp(module, group, shard_ranks=config.shard_ranks, bf16=bf16)
        return module
    with warnings.catch_warnings():
        # Newer releases of torch have another name for `broadcast_buffers`.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            module,
            broadcast_buffers=False,
            # A walk through the graph in each pass, for parameters such as the norm after a middle layer.
            find_unused_parameters=not module.paradigm.uses_all_weights,
            gradient_as_bucket_view=True,
        )


def apply_fsdp(module: ParadigmModule, group: ProcessGroup, *, shard_ranks: int | None, bf16: bool) -> None:
    """Shard the parameters block by block over all ranks (FSDP2), or within groups of `shard_ranks` (HSDP).

    In bf16, blocks are all-gathered in bf16 and their gradients reduced in fp32; parameters outside the
    blocks, such as heads and embeddings, stay fp32. Where the group has tensor ranks, they divide each layer
    of the decoder, and what one of them has of it is sharded over the others' counterparts.

    Raises:
        ConfigError: When the world size is no multiple of `shard_ranks`, or when weights are quantized.
    """
    if not all(parameter.is_floating_point() for parameter in module.parameters()):
        raise ConfigError("train.parallel is 'fsdp', which can't divide quantized weights; use 'ddp'")
    backbone = module.paradigm.backbone
    mesh = _mesh(group, shard_ranks)
    if group.tensor_ranks > 1:
        divide_layers(backbone, mesh[TENSOR_AXIS])
        mesh = mesh[tuple(name for name in mesh.mesh_dim_names or () if name != TENSOR_AXIS)]
    # Autocast decides what is computed in bf16; casting the inputs too would cost positions their precision.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Modules that run in the prefetch threads stay whole: no collective can run there.
    ignored = {parameter for part in backbone.ahead() for parameter in part.parameters()}
    for block in backbone.blocks():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    rest = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=rest, ignored_params=ignored)


def _mesh(group: ProcessGroup, shard_ranks: int | None) -> DeviceMesh:
    """Return the processes by copies of the model, its shards, and tensor parallelism, as far as they are."""
    num_ranks = group.num_data_ranks
    size = shard_ranks or num_ranks
    if num_ranks % size:
        allowed = ", ".join(str(number) for number in range(1, num_ranks + 1) if not num_ranks % number)
        groups = "" if group.tensor_ranks == 1 else f" groups of {group.tensor_ranks}"
        raise ConfigError(
            f"train.shard_ranks is {size}, which doesn't divide the {num_ranks}{groups or ' processes'}; "
            f"allowed: {allowed}"
        )
    axes = {"shard": size}
    if size < num_ranks:
        axes = {"replicate": num_ranks // size, **axes}
    if group.tensor_ranks > 1:
        axes[TENSOR_AXIS] = group.tensor_ranks
    return init_device_mesh(group.device.type, tuple(axes.values()), mesh_dim_names=tuple(axes))


def no_sync(module: nn.Module) -> AbstractContextManager[object]:
    """Return the context of a micro-batch that is not the last of its step: DDP synchronizes gradients later.

    FSDP2 reduces gradients after each micro-batch, or each rank would hold a gradient of the whole model.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def release_ddp(module: nn.Module) -> None:
    """Make DDP drop its connections, which must happen before the process group is destroyed.

    Otherwise DDP's reducer is the last to hold them; it waits for their threads while it keeps them from
    running Python, and sometimes hangs.
    """
    if isinstance(module, DistributedDataParallel):
        ddp: Any = module
        ddp.reducer = ddp.logger = None


def reshard(module: nn.Module) -> bool:
    """Free what a sharded module has gathered for a pass, and return whether it is a sharded module."""
    sharded_modules = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in sharded_modules:
        part.reshard()
    return bool(sharded_modules)


@contextmanager
def full_parameters(
    module: nn.Module, group: ProcessGroup, *, except_of: nn.Module | None = None
) -> Iterator[None]:
    """Replace a sharded module's parameters by full ones, on the main process and on the CPU.

    They are gathered one by one, so that no device has to hold them all.

    Args:
        module: The module.
        group: The process group.
        except_of: A part whose parameters stay as they are.
    """
    is_sharded = reshard(module)
    kept = set() if except_of is None else set(except_of.modules())
    sharded: list[tuple[nn.Module, str, nn.Parameter]] = []
    full: dict[int, nn.Parameter] = {}
    for owner in module.modules() if is_sharded else ():
        if owner in kept:
            continue
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                continue
            if id(parameter) not in full:
                gathered = full_tensor(parameter).detach()
                value = gathered.cpu() if group.is_main else gathered.new_empty(0)
                full[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
            if group.is_main:
                sharded.append((owner, name, parameter))
    for owner, name, parameter in sharded:
        setattr(owner, name, full[id(parameter)])
    try:
        yield
    finally:
        for owner, name, parameter in sharded:
            setattr(owner, name, parameter)
