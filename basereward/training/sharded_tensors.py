"""Sharded tensors: rows of them on each rank, and in each file of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


class RowShard(NamedTuple):
    """The position of a shard: its first row, and the rows of the full tensor."""

    first: int
    total: int


def local_shard(tensor: Tensor) -> tuple[Tensor, RowShard | None]:
    """Return this rank's shard of a tensor and its position; of a plain tensor itself, and None."""
    if not isinstance(tensor, DTensor):
        return tensor, None
    mesh, placement = tensor.device_mesh, tensor.placements[-1]
    if placement != Shard(0):
        raise ValueError(f"only tensors divided by rows can be saved in pieces, not {tensor.placements}")
    axis = mesh.ndim - 1
    rows_each = -(-tensor.shape[0] // mesh.size(axis))
    first = min(mesh.get_local_rank(axis) * rows_each, tensor.shape[0])
    return tensor.to_local(), RowShard(first, tensor.shape[0])


def writes_shard(tensor: DTensor) -> bool:
    """Return whether this rank writes its shard: of the ranks that hold the same shard, the first does."""
    coordinates: Sequence[int] = tensor.device_mesh.get_coordinate() or ()
    return not any(coordinates[:-1]) and tensor.to_local().numel() > 0


class ShardedReader:
    """Reads tensors from files that hold them whole or in shards, each when it is asked for.

    Args:
        files: For each file the positions of its shards by tensor name; its other tensors are whole.

    Attributes:
        num_bytes: The bytes of the tensors that were read so far.
    """

    def __init__(self, files: Mapping[Path, Mapping[str, RowShard]]) -> None:
        self.num_bytes = 0
        self._shards: dict[str, list[tuple[RowShard | None, Any]]] = {}
        for path, positions in files.items():
            # The file stays memory-mapped for as long as this object lives.
            file: Any = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 - not a mapping
                self._shards.setdefault(name, []).append((positions.get(name), file))
        for shards in self._shards.values():
            shards.sort(key=lambda shard: shard[0] or RowShard(0, 0))

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._shards)

    def shape(self, name: str) -> torch.Size:
        """Return the shape of a full tensor."""
        position, file = self._shards[name][0]
        shape = file.get_slice(name).get_shape()
        return torch.Size(shape if position is None else [position.total, *shape[1:]])

    def read(self, name: str, first: int = 0, count: int | None = None) -> Tensor:
        """Return `count` rows of a tensor from row `first` on; without `count` all the rows that follow."""
        shards = self._shards[name]
        if shards[0][0] is None and count is None:
            return self._counted(shards[0][1].get_tensor(name))
        stop = self.shape(name)[0] if count is None else first + count
        pieces: list[Tensor] = []
        for position, file in shards:
            shard = file.get_slice(name)
            shard_first = position.first if position else 0
            start, end = max(first, shard_first), min(stop, shard_first + shard.get_shape()[0])
            if start < end or not pieces:
                pieces.append(shard[start - shard_first : max(start, end) - shard_first])
        return self._counted(torch.cat(pieces) if len(pieces) > 1 else pieces[0])

    def _counted(self, tensor: Tensor) -> Tensor:
        self.num_bytes += tensor.nbytes
        return tensor

    def copy_to(self, name: str, target: Tensor) -> None:
        """Copy a tensor into `target`, a tensor of the same shape; into a sharded one this rank's rows."""
        local, position = local_shard(target)
        local.copy_(self.read(name) if position is None else self.read(name, position.first, len(local)))
