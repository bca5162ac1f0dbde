"""Batches: a function of data, seed and step, with every row used or rejected."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from basereward import Comparison, DataError
from basereward.losses import BradleyTerry, Hinge, PlackettLuce, Regression
from basereward.training.data_loader import order_of, why_useless
from basereward.training.prefetch import Batch, batches
from basereward.training.rejected_rows import RejectedRows

TIED = "ranks: all responses are tied, which teaches this loss nothing"
ALONE = "responses: one response alone teaches this loss nothing; two are needed"
UNRANKED = "ranks: has no ranks or ratings, so nothing can be learnt from it"


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
    found = list(batches((rows[number] for number in order), num_rows, batch_size, prepare))
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
        return list(batches(left, num_rows - start, batch_size, prepare))

    whole = from_row(0)
    skipped = data.draw(st.integers(0, len(whole) - 1))
    rest = from_row(skipped * batch_size)

    def seen(found: list[Batch]) -> list[tuple[list[str], list[str]]]:
        return [(batch.prepared, [str(error) for *_, error in batch.rejected]) for batch in found]

    assert seen(rest) == seen(whole[skipped:])


def test_orders_differ_by_seed_and_epoch_and_may_be_left_as_they_are() -> None:
    orders = [order_of(epoch, 50, seed=seed, shuffle=True) for epoch in (0, 1) for seed in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert order_of(1, 4, seed=1, shuffle=False) == [0, 1, 2, 3]


def test_a_thread_prepares_one_batch_ahead_and_no_more() -> None:
    prepared = []

    def slow(comparison: Comparison) -> str:
        prepared.append((comparison.id, threading.current_thread() is threading.main_thread()))
        return ""

    found = batches(iter(comparisons(6)), 6, 2, slow)
    next(found).settle()
    assert prepared == [(str(number), False) for number in range(4)]
    found.close()
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("basereward-prepare", "basereward-batches"))
    ]


def test_a_mistake_in_preparing_is_not_taken_for_a_bad_row() -> None:
    def broken(comparison: Comparison) -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        list(batches(iter(comparisons(2)), 2, 1, broken))


@pytest.mark.parametrize(
    ("loss", "comparison", "reason"),
    [
        (BradleyTerry(), Comparison("p", ["a", "b"], ranks=[0, 1]), None),
        (BradleyTerry(), Comparison("p", ["a", "b"], ranks=[0, 0]), TIED),
        (BradleyTerry(ties="half"), Comparison("p", ["a", "b"], ranks=[0, 0]), None),
        (BradleyTerry(length_normalize=True), Comparison("p", ["a", "b", "c"], ranks=[1, 1, 1]), TIED),
        (Hinge(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (PlackettLuce(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (PlackettLuce(ties="breslow"), Comparison("p", ["a", "b"], ranks=[0, 0]), None),
        (Regression(), Comparison("p", ["a"], ratings=[3.0]), None),
        (Regression(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (Regression(), Comparison("p", ["a"]), UNRANKED),
    ],
)
def test_the_loss_decides_which_comparisons_are_of_no_use(
    loss: nn.Module, comparison: Comparison, reason: str | None
) -> None:
    error = why_useless(comparison, loss)
    assert (None if error is None else str(error)) == reason


def test_a_rejected_row_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    rows = RejectedRows(path, fail=False)
    first, second = DataError("is empty", file="a.jsonl", line=3, field="prompt"), DataError("half: \ud83d")
    for error in (first, second, first):
        rows.add(error, split="train", id="r")
    offset = rows.sync()
    rows.add(DataError("met after the checkpoint"), split="eval")
    assert len(rows) == 3
    rows.close()

    again = RejectedRows(path, fail=False, offset=offset)
    assert len(again) == 2
    again.add(first, split="train", id="r")
    again.add(first, split="eval", id="r")
    again.close()
    assert path.read_text(encoding="utf-8").splitlines()[0] == (
        '{"split": "train", "id": "r", "file": "a.jsonl", "line": 3, "field": "prompt", "reason": "is empty"}'
    )
    assert len(path.read_bytes().splitlines()) == 3
