"""Tensors that lie in pieces: rows of them in each process, and in each file of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


class Rows(NamedTuple):
    """Which rows of a whole tensor there are."""

    first: int
    total: int


def held(tensor: Tensor) -> tuple[Tensor, Rows | None]:
    """Return what this process holds of a tensor, and which rows; None for all of it."""
    if not isinstance(tensor, DTensor):
        return tensor, None
    mesh, placement = tensor.device_mesh, tensor.placements[-1]
    if placement != Shard(0):
        raise ValueError(f"only tensors divided by rows can be saved in pieces, not {tensor.placements}")
    axis = mesh.ndim - 1
    rows_each = -(-tensor.shape[0] // mesh.size(axis))
    first = min(mesh.get_local_rank(axis) * rows_each, tensor.shape[0])
    return tensor.to_local(), Rows(first, tensor.shape[0])


def is_to_be_written(tensor: DTensor) -> bool:
    """Tell whether it is for this process to write its rows: the first of those that hold them does."""
    coordinates: Sequence[int] = tensor.device_mesh.get_coordinate() or ()
    return not any(coordinates[:-1]) and tensor.to_local().numel() > 0


class Stored:
    """Tensors that lie in files, whole or in pieces; read when asked for.

    Args:
        files: For each file the rows of the tensors that it has pieces of; other tensors in it are whole.
    """

    def __init__(self, files: Mapping[Path, Mapping[str, Rows]]) -> None:
        self._places: dict[str, list[tuple[Rows | None, Any]]] = {}
        for path, rows in files.items():
            # The file is mapped, and stays so as long as this object lives.
            opened: Any = safe_open(path, framework="pt")
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                self._places.setdefault(name, []).append((rows.get(name), opened))
        for places in self._places.values():
            places.sort(key=lambda place: place[0] or Rows(0, 0))

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._places)

    def shape(self, name: str) -> torch.Size:
        """Return the shape of a whole tensor."""
        rows, opened = self._places[name][0]
        shape = opened.get_slice(name).get_shape()
        return torch.Size(shape if rows is None else [rows.total, *shape[1:]])

    def read(self, name: str, first: int = 0, count: int | None = None) -> Tensor:
        """Return rows of a tensor, all of them if no number is given."""
        places = self._places[name]
        if places[0][0] is None and count is None:
            return places[0][1].get_tensor(name)  # type: ignore[no-any-return]
        stop = self.shape(name)[0] if count is None else first + count
        found: list[Tensor] = []
        for rows, opened in places:
            piece = opened.get_slice(name)
            start = rows.first if rows else 0
            here, end = max(first, start), min(stop, start + piece.get_shape()[0])
            if here < end or not found:
                found.append(piece[here - start : max(here, end) - start])
        return torch.cat(found)

    def fill(self, name: str, target: Tensor) -> None:
        """Copy a tensor into another of its shape, or the rows that this process holds of it."""
        local, rows = held(target)
        local.copy_(self.read(name) if rows is None else self.read(name, rows.first, len(local)))
