"""The tensors of the hub's files that one tensor of a model is made of.

Mostly it is one. Where transformers stacks experts that lie in the files one by one, it is several for each
row (an expert), so that a process which has some of the rows needs those experts' tensors alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FileTensors:
    """The tensors of files that a model's tensor is made of.

    Args:
        name: The one tensor that it is; empty where it is stacked.
        is_transposed: Whether the matrices of that tensor's rows are transposed.
        stacked: Else for each row the tensors that are put together below each other.
    """

    name: str = ""
    is_transposed: bool = False
    stacked: Sequence[Sequence[str]] = ()

    def shape(self, shape_of: Callable[[str], Sequence[int]]) -> list[int]:
        """Return the shape of the model's tensor.

        Args:
            shape_of: Returns the shape of a tensor of the files.

        Raises:
            ValueError: When what is put together is not of fitting shapes.
        """
        if not self.stacked:
            first, *others = shape_of(self.name)
            return [first, *(reversed(others) if self.is_transposed else others)]
        shapes = [[tuple(shape_of(name)) for name in row] for row in self.stacked]
        if any(row != shapes[0] for row in shapes) or len({shape[1:] for shape in shapes[0]}) > 1:
            raise ValueError("experts of different shapes")
        return [len(shapes), sum(shape[0] for shape in shapes[0]), *shapes[0][0][1:]]

    def read(
        self,
        rows: slice | None,
        shape: Sequence[int],
        read: Callable[[str], Tensor],
        read_rows: Callable[[str, Sequence[int]], Tensor],
    ) -> Tensor:
        """Return some rows of the model's tensor.

        Args:
            rows: Which; None for all.
            shape: The shape of the result.
            read: Returns a whole tensor of the files.
            read_rows: Returns these rows of a tensor of the files, as a tensor of the given shape.
        """
        if not self.stacked:
            if not self.is_transposed:
                return read_rows(self.name, shape)
            return read_rows(self.name, (shape[0], shape[2], shape[1])).transpose(1, 2).contiguous()
        experts = [torch.cat([read(name) for name in row]) for row in self.stacked[rows or slice(None)]]
        return torch.stack(experts) if experts else torch.empty(tuple(shape))


def composed(
    converter: Any,
    patterns: Mapping[str, str],
    shape: Sequence[int],
    shape_of: Callable[[str], Sequence[int]],
) -> FileTensors | None:
    """Return how a converter of transformers makes a model's tensor.

    Args:
        converter: A `WeightConverter`.
        patterns: For each tensor of the files that it takes the pattern that it matches.
        shape: The shape of the model's tensor.
        shape_of: Returns the shape of a tensor of the files.

    Returns:
        None for a converter that does anything else than to stack experts, or to transpose each.
    """
    from transformers.core_model_loading import Concatenate, MergeModulelist, Transpose

    match converter.operations:
        case [Transpose(dim0=1, dim1=2, check_dims=True)] if len(patterns) == 1:
            [source] = patterns
            return FileTensors(source, is_transposed=list(shape_of(source)) != list(shape))
        case [MergeModulelist(dim=0)] | [MergeModulelist(dim=0), Concatenate(dim=1)]:
            return _stacked(converter.source_patterns, patterns)
    return None


def _stacked(order: Sequence[str], patterns: Mapping[str, str]) -> FileTensors | None:
    """Return the rows by the number that stands for the pattern's `*`, each row in the patterns' order."""
    rows: dict[int, dict[str, str]] = {}
    for source, pattern in patterns.items():
        number = re.search(pattern.replace(".*.", r"\.(\d+)\."), source)
        if number is None:
            return None
        rows.setdefault(int(number[1]), {})[pattern] = source
    if sorted(rows) != list(range(len(rows))) or any(row.keys() != set(order) for row in rows.values()):
        return None
    return FileTensors(stacked=[[rows[number][pattern] for pattern in order] for number in range(len(rows))])
