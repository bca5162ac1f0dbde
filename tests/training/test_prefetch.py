"""Prefetching: batches are a function of data, seed and step, with every row used or rejected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, DataError
from basereward.training.data_loader import order_of
from basereward.training.prefetch import Batch, Prefetcher


def batches(
    rows: Iterator[Comparison], num_rows: int, batch_size: int, prepare: Callable[[Comparison], str]
) -> list[Batch]:
    with Prefetcher(rows, num_rows, batch_size, prepare) as prefetcher:
        return list(prefetcher)


def comparisons(num: int) -> list[Comparison]:
    return [Comparison(f"prompt {number}", ["a", "b"], ranks=[0, 1], id=str(number)) for number in range(num)]


def prepare(comparison: Comparison) -> str:
    if int(comparison.id) % 5 == 3:
        raise DataError("is a three", field="id")
    return f"prepared {comparison.id}"


@given(
    num_rows=st.integers(1, 40),
    batch_size=st.integers(1, 10),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_an_epoch_shows_each_row_once_or_rejects_it(
    num_rows: int, batch_size: int, seed: int, epoch: int, shuffle: bool
) -> None:
    order = order_of(epoch, num_rows, seed=seed, shuffle=shuffle)
    assert sorted(order) == list(range(num_rows))
    rows = comparisons(num_rows)
    found = batches((rows[number] for number in order), num_rows, batch_size, prepare)
    used = [int(comparison.id) for batch in found for comparison in batch.comparisons]
    rejected = [int(id) for batch in found for _, id, _ in batch.rejected]
    assert sorted(used + rejected) == list(range(num_rows))
    assert all(number % 5 == 3 for number in rejected)
    assert [item for batch in found for item in batch.prepared] == [f"prepared {number}" for number in used]
    assert [batch.is_last for batch in found] == [False] * (len(found) - 1) + [True]
    assert sum(batch.num_rows for batch in found) == num_rows


@given(st.integers(1, 40), st.integers(1, 10), st.data())
def test_an_epoch_that_is_entered_later_goes_on_alike(
    num_rows: int, batch_size: int, data: st.DataObject
) -> None:
    rows = comparisons(num_rows)
    order = order_of(0, num_rows, seed=0, shuffle=True)

    def from_row(start: int) -> list[Batch]:
        left = (rows[number] for number in order[start:])
        return batches(left, num_rows - start, batch_size, prepare)

    whole = from_row(0)
    skipped = data.draw(st.integers(0, len(whole) - 1))
    rest = from_row(skipped * batch_size)

    def seen(found: list[Batch]) -> list[tuple[list[str], list[str]]]:
        return [(batch.prepared, [str(error) for *_, error in batch.rejected]) for batch in found]

    assert seen(rest) == seen(whole[skipped:])


def test_a_thread_prepares_one_batch_ahead_and_no_more() -> None:
    prepared = []

    def slow(comparison: Comparison) -> str:
        prepared.append((comparison.id, threading.current_thread() is threading.main_thread()))
        return ""

    with Prefetcher(iter(comparisons(6)), 6, 2, slow) as prefetcher:
        next(iter(prefetcher))
        prefetcher.wait_for_prefetch()
        assert prepared == [(str(number), False) for number in range(4)]
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("basereward-prepare", "basereward-batches"))
    ]


def test_a_mistake_in_preparing_is_not_taken_for_a_bad_row() -> None:
    def broken(comparison: Comparison) -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        batches(iter(comparisons(2)), 2, 1, broken)
