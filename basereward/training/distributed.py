"""The processes of one training: who they are, and what they tell each other.

What is told goes over the CPU (gloo), so that nothing here waits for a device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: writing a large model to a slow disk takes that long at worst."""


class Ranks:
    """The processes that train together, each of which has this object.

    Args:
        rank: The number of this process.
        size: How many there are.
        device: Where this process computes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @classmethod
    def join(cls) -> Ranks:
        """Meet the other processes, where `torchrun` has started some; else be the only one."""
        size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
        if size == 1:
            return cls()
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        return cls(dist.get_rank(), size, device)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and shows what all have in common."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Return what each process gave, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def gather_numbers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the whole numbers that each process gave, in their order; much faster than `gather`."""
        if self.size == 1:
            return [list(numbers)]
        return self.gather_tensor(torch.tensor(numbers, dtype=torch.int64)).tolist()

    def gather_tensor(self, tensor: torch.Tensor) -> torch.Tensor:  # [n] -> [size, n]
        """Return a tensor of each process, on the device that it is on."""
        if self.size == 1:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return torch.stack(found)

    def first(self, call: Callable[[], Value]) -> Value:
        """Have the first process do something, and return in all what came of it.

        Raises:
            Exception: In all processes, what it raised in the first.
        """
        if self.size == 1:
            return call()
        found: list[Any] = [None, None]
        if self.is_first:
            try:
                found[0] = call()
            except Exception as error:
                found[1] = error
        dist.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        return found[0]  # type: ignore[no-any-return]

    def each(self, call: Callable[[], Value]) -> list[Value]:
        """Have each process do something, and return in all what came of it in each.

        Raises:
            Exception: In all processes, what the first of those that failed raised.
        """
        value: Any = None
        failure: Exception | None = None
        try:
            value = call()
        except Exception as error:
            failure = error
        found = self.gather((value, failure))
        for _, failed in found:
            if failed is not None:
                raise failed
        return [value for value, _ in found]

    def leave(self) -> None:
        """Part from the other processes, so that none waits for what another does after this."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
