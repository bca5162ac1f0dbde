"""A model over processes: copies of it whose gradients are joined (DDP), or its parts (FSDP2, HSDP)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.losses import LossOutput
from basereward.protocols import Paradigm
from basereward.training.distributed import Ranks
from basereward.training.step_metrics import row_of


class Pass(Paradigm, nn.Module):
    """A paradigm as one module with one `forward`, which DDP and FSDP2 put their hooks around.

    It stands in for the paradigm where a `RewardModel` scores while it is trained.
    """

    def __init__(self, paradigm: Paradigm) -> None:
        super().__init__()
        self.paradigm: Any = paradigm
        self.reason_for_nan = paradigm.reason_for_nan
        self._in_step_with: Ranks | None = None

    def forward(self, batch: Sequence[Any], *, scores: bool = False) -> Any:
        """Return the summed loss [] and the row of statistics [2 + S] of prepared comparisons, or rewards."""
        if scores:
            return self.paradigm.score_of(batch)
        output = self.loss_of(batch)
        return output.loss * output.weight, row_of(output)

    def loss_of(self, batch: Sequence[Any]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        output: LossOutput = self.paradigm.loss_of(batch)
        return output

    def prepare(self, comparison: Any) -> Any:
        """Do what the CPU can do ahead."""
        return self.paradigm.prepare(comparison)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Any]) -> Tensor:  # [N]
        """Return the rewards of prepared comparisons."""
        if self._in_step_with is not None:
            self._in_step_with.gather_numbers([1])
        rewards: Tensor = self(batch, scores=True)
        return rewards

    @contextmanager
    def in_step(self, ranks: Ranks, spare: Any) -> Iterator[None]:
        """Let each process call `score_of` as often as it needs to.

        A pass through a sharded model is a thing that all processes do together, so those that are done go on
        with a pass for nothing until all are.

        Args:
            ranks: The processes.
            spare: A prepared comparison to do it with.
        """
        if not isinstance(self, FSDPModule):
            yield
            return
        self._in_step_with = ranks
        try:
            yield
        finally:
            self._in_step_with = None
        with torch.no_grad():
            while any(busy for [busy] in ranks.gather_numbers([0])):
                self([spare], scores=True)


def over_ranks(passing: Pass, ranks: Ranks, config: TrainConfig, *, bf16: bool) -> nn.Module:
    """Return the module to call in training: the pass itself, or what stands for it among processes.

    Args:
        passing: On its device, its frozen parameters frozen.
        ranks: The processes.
        config: Says how: `parallel`, `shard_ranks`.
        bf16: Whether products are computed in bf16.

    Raises:
        ConfigError: When the processes can't be divided as asked.
    """
    if ranks.size == 1:
        return passing
    backbone = passing.paradigm.backbone
    # A process whose comparisons have no image must still take part in what the others do with theirs.
    backbone.always_runs_vision = True
    if config.parallel == "fsdp":
        shard(passing, ranks, shard_ranks=config.shard_ranks, bf16=bf16)
        return passing
    with warnings.catch_warnings():
        # Newer releases of torch have another name for `broadcast_buffers`.
        warnings.simplefilter("ignore", FutureWarning)
        # Some parameters may go unused, such as the norm after a layer that isn't the last.
        return DistributedDataParallel(
            passing, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
        )


def shard(passing: Pass, ranks: Ranks, *, shard_ranks: int | None, bf16: bool) -> None:
    """Divide the parameters among processes, block by block (FSDP2); with `shard_ranks` within groups (HSDP).

    In bf16, blocks are gathered in bf16 and their gradients added up in fp32; what isn't in a block, heads
    and embeddings, stays fp32.

    Raises:
        ConfigError: When the number of processes is no multiple of `shard_ranks`, or weights are quantized.
    """
    if not all(parameter.is_floating_point() for parameter in passing.parameters()):
        raise ConfigError("train.parallel is 'fsdp', which can't divide quantized weights; use 'ddp'")
    group = shard_ranks or ranks.size
    if ranks.size % group:
        allowed = ", ".join(str(number) for number in range(1, ranks.size + 1) if not ranks.size % number)
        number = ranks.size
        raise ConfigError(
            f"train.shard_ranks is {group}, which doesn't divide the {number} processes; allowed: {allowed}"
        )
    shape, names = ((group,), ("shard",))
    if group < ranks.size:
        shape, names = ((ranks.size // group, group), ("replicate", "shard"))  # type: ignore[assignment]
    mesh = init_device_mesh(ranks.device.type, shape, mesh_dim_names=names)
    # Autocast decides what is computed in bf16; casting the inputs too would cost positions their precision.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    backbone = passing.paradigm.backbone
    # What runs in the threads that prepare can't be brought together there.
    ahead = {parameter for module in backbone.ahead() for parameter in module.parameters()}
    for block in backbone.blocks():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    rest = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(passing, mesh=mesh, mp_policy=rest, ignored_params=ahead)


def without_joining(module: nn.Module) -> AbstractContextManager[object]:
    """Return the context of passes after which more of the same step follow.

    DDP adds up over processes after the last one. FSDP2 does after each, or each process would have to hold a
    gradient of the whole model.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def release(module: nn.Module) -> None:
    """Make DDP let go of the processes, which must come before they part.

    Else the last to hold the connections is DDP's reducer, which waits for their threads while it keeps them
    from running Python, and sometimes for ever.
    """
    if isinstance(module, DistributedDataParallel):
        held: Any = module
        held.reducer = held.logger = None


@contextmanager
def whole(module: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Put a sharded module's whole parameters in their places, in the first process, on the CPU.

    They are brought together one by one, so that no device has to hold them all.
    """
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in sharded:
        part.reshard()
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    found: dict[int, nn.Parameter] = {}
    for owner in module.modules() if sharded else ():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                continue
            if id(parameter) not in found:
                full = parameter.full_tensor().detach()
                held = full.cpu() if ranks.is_first else full.new_empty(0)
                found[id(parameter)] = nn.Parameter(held, requires_grad=parameter.requires_grad)
            if ranks.is_first:
                kept.append((owner, name, parameter))
    for owner, name, parameter in kept:
        setattr(owner, name, found[id(parameter)])
    try:
        yield
    finally:
        for owner, name, parameter in kept:
            setattr(owner, name, parameter)
