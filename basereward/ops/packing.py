"""Work on lengths and token ids before they become tensors: packing rows, finding a shared prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from basereward.ops import _loader


def first_fit(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Put items, in their order, each into the first row with room for it.

    Args:
        lengths: Tokens of each item, >= 0.
        row_tokens: Tokens of a row; an item that is longer has a row to itself.

    Returns:
        The numbers of each row's items.

    Raises:
        ValueError: For a negative length or a row without room.
    """
    lengths = [int(length) for length in lengths]
    if row_tokens < 1:
        raise ValueError(f"row_tokens is {row_tokens}; a row needs room for at least 1 token")
    if negative := [length for length in lengths if length < 0]:
        raise ValueError(f"lengths holds {negative[0]}; a number of tokens is >= 0")
    if _loader.host.module is not None:
        native: list[list[int]] = _loader.host.module.first_fit(lengths, row_tokens)
        return native
    rows: list[list[int]] = []
    room: NDArray[np.int64] = np.full(max(1, len(lengths)), -1)
    for number, length in enumerate(lengths):
        row = int(np.argmax(room[: len(rows)] >= length)) if rows else 0
        if rows and room[row] >= length:
            rows[row].append(number)
            room[row] -= length
        else:
            room[len(rows)] = row_tokens - length
            rows.append([number])
    return rows


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many token ids all sequences begin with.

    Args:
        sequences: Token ids; none give 0.
    """
    if _loader.host.module is not None:
        return int(_loader.host.module.common_prefix([[int(id) for id in ids] for ids in sequences]))
    if not sequences:
        return 0
    first = np.asarray(sequences[0], dtype=np.int64)
    length = len(first)
    for ids in sequences[1:]:
        other = np.asarray(ids, dtype=np.int64)
        length = min(length, len(other))
        differs = first[:length] != other[:length]
        if differs.any():
            length = int(np.argmax(differs))
    return length
