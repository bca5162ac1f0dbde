"""The process group of a training: rank, world size, device and collectives.

Control messages run over gloo on the CPU, so that none of them waits for a device, and with a timeout of
their own: where one process works for all, such as to write a model, the others wait in one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from basereward.errors import ConfigError
from basereward.hardware.precision import device_of

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=2)
"""How long a rank waits for the others: at worst for a large model to be written to a slow disk."""

DEVICE_TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others within a pass: a device that hangs must not cost hours of all."""


class ProcessGroup:
    """The processes that train together; each of them has an object of its own, with its rank and device."""

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        control: dist.ProcessGroup | None = None,
        tensor_ranks: int = 1,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = device or device_of()
        self._control = control  # for what is on the CPU; None for the default group
        self.tensor_ranks = tensor_ranks

    @classmethod
    def init(cls, device_name: str = "auto") -> ProcessGroup:
        """Initialize the process group of `torchrun`; without `torchrun`, one of a single process.

        Raises:
            ConfigError: When there is no such device.
        """
        device = device_of(device_name)
        world_size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
        if world_size == 1:
            return cls(device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if device.type != "cuda":
            dist.init_process_group("gloo", timeout=TIMEOUT)
            return cls(dist.get_rank(), world_size, device)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=DEVICE_TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT)
        return cls(dist.get_rank(), world_size, device, control)

    def with_tensor_ranks(self, tensor_ranks: int) -> ProcessGroup:
        """Return the group as one in which so many neighbouring ranks divide each layer.

        They are given the same comparisons, so together they count as one rank of data.

        Raises:
            ConfigError: When the world size is no multiple of it.
        """
        if self.world_size % tensor_ranks:
            raise ConfigError(
                f"train.tensor_ranks is {tensor_ranks}, which doesn't divide the number of processes, "
                f"{self.world_size}; have torchrun start more, or leave it out"
            )
        return ProcessGroup(self.rank, self.world_size, self.device, self._control, tensor_ranks)

    @property
    def data_rank(self) -> int:
        """The rank of this process among those that are given different comparisons."""
        return self.rank // self.tensor_ranks

    @property
    def num_data_ranks(self) -> int:
        """The number of ranks that are given different comparisons."""
        return self.world_size // self.tensor_ranks

    def by_data_rank(self, values: Sequence[Value]) -> Sequence[Value]:
        """Return of the values of all ranks one for each rank of data."""
        return values[:: self.tensor_ranks]

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes the run's files and shows its progress."""
        return self.rank == 0

    def all_gather_objects(self, value: Value) -> list[Value]:
        """Return the value of each rank, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def all_gather_ints(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the integers of each rank, in order of rank; much faster than `all_gather_objects`."""
        if self.world_size == 1:
            return [list(numbers)]
        return self.all_gather_tensor(torch.tensor(numbers, dtype=torch.int64)).tolist()

    def all_gather_tensor(self, tensor: torch.Tensor) -> torch.Tensor:  # [n] -> [world size, n]
        """Return the tensor of each rank, on the tensor's device."""
        if self.world_size == 1:
            return tensor[None]
        tensors = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(tensors, tensor, group=self._control if tensor.device.type == "cpu" else None)
        return torch.stack(tensors)

    def on_main(self, call: Callable[[], Value]) -> Value:
        """Call a function on the main process, and return its result on all ranks.

        Raises:
            Exception: On all ranks, the exception that the function raised.
        """
        if self.world_size == 1:
            return call()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = call()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, group=self._control)
        result, failure = outcome
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def on_all(self, call: Callable[[], Value]) -> list[Value]:
        """Call a function on every rank, and return the results of all on each, in order of rank.

        Raises:
            Exception: On all ranks, the exception of the lowest rank that failed.
        """
        result: Any = None
        failure: Exception | None = None
        try:
            result = call()
        except Exception as error:
            failure = error
        outcomes = self.all_gather_objects((result, failure))
        for _, other_failure in outcomes:
            if other_failure is not None:
                raise other_failure
        return [result for result, _ in outcomes]

    def close(self) -> None:
        """Destroy the process group, so that no rank waits for what another one does later."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
