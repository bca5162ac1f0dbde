"""Batches of one epoch: a row that can't be used leaves its batch smaller and moves no other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.scoring.batching import shares
from basereward.scoring.ordered import estimated_size

Row = Comparison | DataError


class Rejected(NamedTuple):
    """A row that can't be used: its place in the batch, its id as far as it has one, and the reason."""

    place: int
    id: str
    error: DataError


@dataclass(frozen=True)
class Batch:
    """What one process has of one step's rows, ready for the model, and the errors of those that are not.

    Args:
        comparisons: Those that can be used.
        prepared: The same, as the paradigm prepared them.
        rejected: Rows that can't be used.
        num_rows: Rows of the step in all processes: how far the batch leads on in its epoch.
        is_last: Whether the epoch ends with it.
        spare: A prepared comparison of the step, whosever it is; None where none can be used.
        following: The next batch of the epoch, which a thread prepares.
    """

    comparisons: list[Comparison]
    prepared: list[Any]
    rejected: list[Rejected]
    num_rows: int
    is_last: bool
    spare: Any = None
    following: Future[Batch] | None = None

    def settle(self) -> None:
        """Wait until the next batch is prepared, which may depend on the model being in training mode."""
        if self.following is not None:
            wait([self.following])


def batches(
    rows: Iterator[Row],
    num_rows: int,
    batch_size: int,
    prepare: Callable[[Comparison], Any],
    *,
    num_workers: int = 1,
    rank: int = 0,
    num_ranks: int = 1,
) -> Generator[Batch]:
    """Yield an epoch's batches in order; while one is trained on, threads prepare the next.

    A row that can't be used leaves its batch smaller and moves no other row, so that every batch depends on
    the order alone; and which rows a step is made of doesn't depend on how many processes share them.

    Args:
        rows: Comparisons, and errors in the places of those that can't be used.
        num_rows: How many there are.
        batch_size: Rows of a step, in all processes together; the last may have fewer.
        prepare: What a thread does to each comparison of this process.
        num_workers: Threads that prepare.
        rank: The number of this process.
        num_ranks: How many processes share each step's rows.
    """

    def prepared(row: Row) -> Any:
        if isinstance(row, DataError):
            return row
        try:
            return prepare(row)
        except DataError as error:
            return row.place.locate(error)

    def make(num_done: int) -> Batch:
        chosen = list(islice(rows, batch_size))
        costs = [0.0 if isinstance(row, DataError) else estimated_size(row) for row in chosen]
        own = shares(costs, num_ranks)[rank]
        usable: list[Comparison] = []
        ready: list[Any] = []
        rejected: list[Rejected] = []
        found = workers.map(prepared, [chosen[place] for place in own])
        for place, result in zip(own, found, strict=True):
            row = chosen[place]
            if isinstance(result, DataError):
                rejected.append(Rejected(place, "" if isinstance(row, DataError) else row.id, result))
            else:
                assert isinstance(row, Comparison)
                usable.append(row)
                ready.append(result)
        is_last = num_done + batch_size >= num_rows
        # Where others have work and this process has none, it goes through the motions with one of theirs.
        others = () if num_ranks == 1 or ready else (prepared(row) for row in chosen)
        spare = next((other for other in others if not isinstance(other, DataError)), None)
        return Batch(usable, ready, rejected, len(chosen), is_last, ready[0] if ready else spare)

    num_done = 0
    with (
        ThreadPoolExecutor(max_workers=num_workers, thread_name_prefix="basereward-prepare") as workers,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="basereward-batches") as executor,
    ):
        upcoming = executor.submit(make, num_done) if num_rows else None
        while upcoming is not None:
            batch = upcoming.result()
            num_done += batch_size
            upcoming = None if batch.is_last else executor.submit(make, num_done)
            yield replace(batch, following=upcoming)
