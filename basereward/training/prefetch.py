"""Prefetching: threads prepare the next batch of an epoch while the model trains on the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.scoring.batching import balanced_partition, estimated_size

Row = Comparison | DataError


class RejectedRow(NamedTuple):
    """A row that can't be used: its position in the step's batch, its id if it has one, and the error."""

    position: int
    id: str
    error: DataError


@dataclass(frozen=True)
class Batch:
    """This rank's share of the rows of one step, prepared for the model, and the errors of rejected rows.

    Args:
        comparisons: Comparisons that can be used.
        prepared: The same comparisons, as the paradigm prepared them.
        rejected: Rows that can't be used.
        num_rows: Rows of the step on all ranks; the position in the epoch advances by so many.
        is_last: Whether this is the epoch's last batch.
        dummy: A prepared comparison of the step, of any rank; None where no row of the step can be used.
    """

    comparisons: list[Comparison]
    prepared: list[Any]
    rejected: list[RejectedRow]
    num_rows: int
    is_last: bool
    dummy: Any = None


class Prefetcher:
    """The batches of an epoch, in order; threads prepare one batch ahead.

    Enter it, iterate over it once, and leave it, which waits for the threads. The rows of a step depend on
    their order alone, neither on time nor on the number of ranks: a row that can't be used leaves its batch
    smaller and moves no other row.

    Args:
        rows: Comparisons, and errors in the places of rows that can't be used.
        num_rows: The number of rows.
        batch_size: Rows of a step on all ranks together; the last batch may have fewer.
        prepare: Called in a thread for each comparison of this rank.
        num_workers: Threads that prepare comparisons.
        rank: This process's rank.
        world_size: Number of ranks that share each step's rows.
    """

    def __init__(
        self,
        rows: Iterator[Row],
        num_rows: int,
        batch_size: int,
        prepare: Callable[[Comparison], Any],
        *,
        num_workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._rows = rows
        self._num_rows = num_rows
        self._batch_size = batch_size
        self._prepare = prepare
        self._rank, self._world_size = rank, world_size
        self._workers = ThreadPoolExecutor(num_workers, thread_name_prefix="basereward-prepare")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="basereward-batches")
        self._next: Future[Batch] | None = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()
        self._workers.shutdown()

    def __iter__(self) -> Iterator[Batch]:
        starts = iter(range(0, self._num_rows, self._batch_size))
        self._prefetch(starts)
        while self._next is not None:
            batch = self._next.result()
            self._prefetch(starts)
            yield batch

    def wait_for_prefetch(self) -> None:
        """Wait until the next batch is prepared; to be called before the model leaves training mode.

        What a paradigm or backbone prepares may depend on that mode.
        """
        if self._next is not None:
            wait([self._next])

    def _prefetch(self, starts: Iterator[int]) -> None:
        start = next(starts, None)
        self._next = None if start is None else self._executor.submit(self._make, start)

    def _make(self, start: int) -> Batch:
        rows = list(islice(self._rows, self._batch_size))
        costs = [0.0 if isinstance(row, DataError) else estimated_size(row) for row in rows]
        indices = balanced_partition(costs, self._world_size)[self._rank]
        comparisons: list[Comparison] = []
        prepared: list[Any] = []
        rejected: list[RejectedRow] = []
        results = self._workers.map(self._prepare_row, [rows[index] for index in indices])
        for index, result in zip(indices, results, strict=True):
            row = rows[index]
            if isinstance(result, DataError):
                rejected.append(RejectedRow(index, "" if isinstance(row, DataError) else row.id, result))
            else:
                assert isinstance(row, Comparison)
                comparisons.append(row)
                prepared.append(result)
        # A rank without usable rows runs another rank's row as a dummy.
        dummy = prepared[0] if prepared else None
        if not prepared and self._world_size > 1:
            results = map(self._prepare_row, rows)
            dummy = next((result for result in results if not isinstance(result, DataError)), None)
        is_last = start + self._batch_size >= self._num_rows
        return Batch(comparisons, prepared, rejected, len(rows), is_last, dummy)

    def _prepare_row(self, row: Row) -> Any:
        if isinstance(row, DataError):
            return row
        try:
            return self._prepare(row)
        except DataError as error:
            return row.place.locate(error)
