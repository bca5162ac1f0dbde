"""Sharded tensors: rows and columns of them on each rank, and in each file of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

TENSOR_AXIS = "tensor"
"""The name of a mesh's axis along which layers are divided, not data."""


class ShardPosition(NamedTuple):
    """The position of a shard: its first row and the rows of the full tensor, and its columns likewise.

    `num_columns` is 0 where rows alone are divided.
    """

    first: int
    total: int
    first_column: int = 0
    num_columns: int = 0


def local_shard(tensor: Tensor) -> tuple[Tensor, ShardPosition | None]:
    """Return this rank's shard of a tensor and its position; of a plain tensor itself, and None."""
    if not isinstance(tensor, DTensor):
        return tensor, None
    mesh = tensor.device_mesh
    placement: Any  # those that divide have the axis that they divide, which the types of torch don't say
    starts, lengths = [0, 0], [*tensor.shape[:2], 0][:2]
    # Tensor parallelism, the last axis, divides first; FSDP divides by rows what is left.
    for axis in reversed(range(mesh.ndim)):
        placement = tensor.placements[axis]
        if isinstance(placement, Replicate):
            continue
        if isinstance(placement, Partial) or placement.dim > 1:
            raise ValueError(
                f"only tensors divided by rows and columns can be saved in pieces, not {tensor.placements}"
            )
        dim = placement.dim
        each = -(-lengths[dim] // mesh.size(axis))
        first = min(mesh.get_local_rank(axis) * each, lengths[dim])
        starts[dim] += first
        lengths[dim] = min(each, lengths[dim] - first)
    has_columns = tensor.ndim > 1 and lengths[1] < tensor.shape[1]
    columns = (starts[1], tensor.shape[1]) if has_columns else ()
    return tensor.to_local(), ShardPosition(starts[0], tensor.shape[0], *columns)


def writes_shard(tensor: DTensor, *, is_first_of_tensor_ranks: bool) -> bool:
    """Return whether this rank writes its shard: of the ranks that hold the same shard, the first does.

    Args:
        tensor: The sharded tensor.
        is_first_of_tensor_ranks: Whether this rank is the first of those that divide layers: it writes what
            they don't divide.
    """
    mesh = tensor.device_mesh
    coordinates: Sequence[int] = mesh.get_coordinate() or ()
    is_copy = any(
        coordinate and isinstance(placement, Replicate)
        for coordinate, placement in zip(coordinates, tensor.placements, strict=True)
    )
    is_divided = TENSOR_AXIS in (mesh.mesh_dim_names or ())
    return not is_copy and (is_divided or is_first_of_tensor_ranks) and tensor.to_local().numel() > 0


def full_tensor(tensor: DTensor) -> Tensor:
    """Return the full tensor on all ranks, a collective along each axis of its mesh."""
    placements = list(tensor.placements)
    for axis in range(len(placements)):
        placements[axis] = Replicate()
        tensor = tensor.redistribute(placements=placements)
    return tensor.to_local()


def part_of(tensor: Tensor, shard: Tensor, position: ShardPosition | None) -> Tensor:
    """Return of a full tensor the part where a shard of it lies."""
    if position is None:
        return tensor
    rows = tensor[position.first : position.first + len(shard)]
    if not position.num_columns:
        return rows
    return rows[:, position.first_column : position.first_column + shard.shape[1]]


class ShardedReader:
    """Reads tensors from files that hold them whole or in shards, each when it is asked for.

    Args:
        files: For each file the positions of its shards by tensor name; its other tensors are whole.

    Attributes:
        num_bytes: The bytes of the tensors that were read so far.
    """

    def __init__(self, files: Mapping[Path, Mapping[str, ShardPosition]]) -> None:
        self.num_bytes = 0
        self._shards: dict[str, list[tuple[ShardPosition | None, Any]]] = {}
        for path, positions in files.items():
            # The file stays memory-mapped for as long as this object lives.
            file: Any = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 - not a mapping
                self._shards.setdefault(name, []).append((positions.get(name), file))
        for shards in self._shards.values():
            shards.sort(key=lambda shard: shard[0] or ShardPosition(0, 0))

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._shards)

    def shape(self, name: str) -> torch.Size:
        """Return the shape of a full tensor."""
        position, file = self._shards[name][0]
        shape = file.get_slice(name).get_shape()
        if position is not None:
            shape[0] = position.total
            if position.num_columns:
                shape[1] = position.num_columns
        return torch.Size(shape)

    def read(self, name: str) -> Tensor:
        """Return a full tensor."""
        shards = self._shards[name]
        if shards[0][0] is None:
            return self._counted(shards[0][1].get_tensor(name))
        shape = self.shape(name)
        return self.read_part(name, shape, ShardPosition(0, shape[0]))

    def read_part(self, name: str, shape: Sequence[int], position: ShardPosition | None) -> Tensor:
        """Return a part of a tensor, of so many rows and columns; without a position the full tensor."""
        if position is None:
            return self.read(name)
        starts = (position.first, position.first_column)[: len(shape)]
        wanted = [(start, start + length) for start, length in zip(starts, shape, strict=False)]
        pieces: list[tuple[tuple[slice, ...], Tensor]] = []
        for held, file in self._shards[name]:
            shard = file.get_slice(name)
            offsets = (held.first, held.first_column) if held else (0, 0)
            spans = [
                (max(first, offset), min(stop, offset + length))
                for (first, stop), offset, length in zip(wanted, offsets, shard.get_shape(), strict=False)
            ]
            if all(first < stop for first, stop in spans):
                within = _slices(spans, offsets)
                pieces.append((_slices(spans, starts), self._counted(shard[within])))
        if len(pieces) == 1:
            return pieces[0][1]
        result: Tensor = self._shards[name][0][1].get_slice(name)[:0].new_empty(tuple(shape))
        for place, piece in pieces:
            result[place] = piece
        return result

    def _counted(self, tensor: Tensor) -> Tensor:
        self.num_bytes += tensor.nbytes
        return tensor

    def copy_to(self, name: str, target: Tensor) -> None:
        """Copy a tensor into `target`, a tensor of the same shape; into a sharded one this rank's part."""
        local, position = local_shard(target)
        local.copy_(self.read_part(name, local.shape, position))


def _slices(spans: Sequence[tuple[int, int]], offsets: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(first - offset, stop - offset) for (first, stop), offset in zip(spans, offsets, strict=False)
    )
