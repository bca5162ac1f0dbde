from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import ops
from basereward.ops import _loader
from basereward.ops._library import Part

HOST = ops.status()["host"]
KERNELS = [
    pytest.param("cpp", marks=pytest.mark.skipif(HOST["kernels"] != "cpp", reason=HOST["reason"])),
    "numpy",
]


@pytest.fixture(params=KERNELS, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with the native helpers and with the plain ones."""
    whole = _loader.host
    if request.param == "numpy":
        _loader.host = Part(None, "switched off")
    yield request.param
    _loader.host = whole


def plain_first_fit(lengths: list[int], row_tokens: int) -> list[list[int]]:
    """Look through all rows for each item."""
    rows, room = [], []
    for number, length in enumerate(lengths):
        for row, left in enumerate(room):
            if length <= left:
                rows[row].append(number)
                room[row] -= length
                break
        else:
            rows.append([number])
            room.append(row_tokens - length)
    return rows


@given(lengths=st.lists(st.integers(0, 40), max_size=60), row_tokens=st.integers(1, 50))
def test_each_item_goes_to_the_first_row_with_room(kernels: str, lengths: list[int], row_tokens: int) -> None:
    rows = ops.first_fit(lengths, row_tokens)
    assert rows == plain_first_fit(lengths, row_tokens)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    for row in rows:
        positive = [lengths[number] for number in row if lengths[number]]
        assert len(positive) <= 1 or sum(positive) <= row_tokens


def test_packing_by_hand(kernels: str) -> None:
    # 3 | 3 4 | 3+2 4 | 3+2 4 9 (longer than a row) | 3+2 4+1 9
    assert ops.first_fit([3, 4, 2, 9, 1], 5) == [[0, 2], [1, 4], [3]]
    assert ops.first_fit(np.array([5, 5]), 5) == [[0], [1]]
    assert ops.first_fit([], 5) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], 0), "row_tokens is 0; a row needs room for at least 1 token"),
        (([2, -3], 4), "lengths holds -3; a number of tokens is >= 0"),
    ],
)
def test_what_cannot_be_packed_is_named(kernels: str, arguments: tuple[list[int], int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ops.first_fit(*arguments)


TOKENS = st.lists(st.integers(0, 3), max_size=12)


@given(start=TOKENS, ends=st.lists(TOKENS, min_size=1, max_size=5))
def test_a_common_prefix_is_the_longest_one(kernels: str, start: list[int], ends: list[list[int]]) -> None:
    sequences = [start + end for end in ends]
    length = ops.common_prefix(sequences)
    shortest = min(map(len, sequences))
    assert len(start) <= length <= shortest
    assert all(ids[:length] == sequences[0][:length] for ids in sequences)
    assert length == shortest or len({ids[length] for ids in sequences}) > 1


def test_common_prefixes_by_hand(kernels: str) -> None:
    assert ops.common_prefix([]) == 0
    assert ops.common_prefix([[5, 6]]) == 2
    assert ops.common_prefix([[1, 2, 3], [1, 2], [1, 2, 9]]) == 2
    assert ops.common_prefix([np.array([2**40, 1]), [2**40, 2]]) == 1
    assert ops.common_prefix([[], [1]]) == 0
