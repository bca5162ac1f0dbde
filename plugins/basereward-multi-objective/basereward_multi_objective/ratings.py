"""Ratings of attributes, as they come with a comparison.

Shapes: N responses, A attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from basereward.errors import DataError, shown
from basereward.media.limits import is_number

if TYPE_CHECKING:
    from basereward import Comparison

KEY = "attributes"
"""Where a comparison's `meta` has them: for each response a table of numbers by attribute, or null."""


def ratings_of(comparison: Comparison, attributes: Sequence[str]) -> Tensor:  # [N, A]
    """Return the ratings of a comparison's responses, not-a-number where one is unknown.

    Raises:
        DataError: When they are no table or null for each response, or one of them is no finite number.
    """
    num = len(comparison.responses)
    tables = comparison.meta.get(KEY)
    if tables is None:
        return torch.full((num, len(attributes)), torch.nan)
    is_list = isinstance(tables, list | tuple) and len(tables) == num
    if not is_list or not all(table is None or isinstance(table, Mapping) for table in tables):
        raise DataError(
            f"a list of {num} tables is needed, of numbers by attribute, or null; not {tables!r:.80}",
            field=f"meta.{KEY}",
        )
    return torch.tensor(
        [
            [_number((table or {}).get(name), f"meta.{KEY}[{number}].{name}") for name in attributes]
            for number, table in enumerate(tables)
        ]
    )


def _number(value: Any, field: str) -> float:
    if value is None:
        return math.nan
    if not is_number(value):
        raise DataError(f"a finite number is needed, not {shown(value)}", field=field)
    return float(value)
