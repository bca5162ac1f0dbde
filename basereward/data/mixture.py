"""Choose the rows of an epoch, and their order, from sizes, settings and seed alone.

An epoch is a sequence of *draws*. A data set's *quota* is the number of its draws, which follows from the
sizes. Nothing here has state: the epoch and the number of the next draw suffice to resume.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import TypeVar

from basereward.config.run import MixtureConfig, Source
from basereward.errors import ConfigError, DataError

Item = TypeVar("Item")


def quotas(
    sizes: Sequence[int], multimodal: Sequence[bool], sources: Sequence[Source], mixture: MixtureConfig
) -> list[int]:
    """Return how many draws of an epoch each data set has.

    With the sizes capped by `max_rows` and multiplied by `weight`, their sum is the length of the epoch. The
    temperature, then the share of multimodal data, change what each has of it.

    Args:
        sizes: Rows of each data set.
        multimodal: Whether each counts as data with images.
        sources: The data sets' own settings.
        mixture: The settings of all.

    Raises:
        ConfigError: When every weight is 0, or a data set of the kind that is to have a share is missing.
    """
    capped = [
        size if source.max_rows is None else min(size, source.max_rows)
        for size, source in zip(sizes, sources, strict=True)
    ]
    total = sum(size * source.weight for size, source in zip(capped, sources, strict=True))
    parts = [
        source.weight * (size ** (1 / mixture.temperature) if size else 0.0)
        for size, source in zip(capped, sources, strict=True)
    ]
    if not total:
        if any(capped):
            raise ConfigError("data.train: every data set with rows has weight 0; give one a weight above 0")
        return [0] * len(sizes)
    if mixture.multimodal_share is not None:
        parts = _shared(parts, multimodal, mixture.multimodal_share)
    return rounded([total * part / sum(parts) for part in parts])


def _shared(parts: Sequence[float], multimodal: Sequence[bool], share: float) -> list[float]:
    """Scale the parts with and without images so that they have the share they should."""
    sums = {
        kind: sum(part for part, is_kind in zip(parts, multimodal, strict=True) if is_kind is kind)
        for kind in (True, False)
    }
    shares = {True: share, False: 1 - share}
    for kind, name in ((True, "with images"), (False, "without images")):
        if shares[kind] and not sums[kind]:
            raise ConfigError(
                f"data.mixture.multimodal_share is {share:g}, but no data set {name} is in data.train; "
                "add one, or say by its key 'multimodal' which it is"
            )
    return [
        part * shares[kind] / sums[kind] if part else 0.0
        for part, kind in zip(parts, multimodal, strict=True)
    ]


def rounded(values: Sequence[float]) -> list[int]:
    """Round to integers that keep the sum, those nearest to the next one first."""
    floors = [int(value) for value in values]
    missing = round(sum(values)) - sum(floors)
    by_rest = sorted(range(len(values)), key=lambda number: floors[number] - values[number])
    for number in by_rest[:missing]:
        floors[number] += 1
    return floors


def is_drawn(row: int, size: int, num_draws: int, offset: int) -> bool:
    """Tell whether a row is among `num_draws` that are spread evenly over `size`; the offset moves them on.

    Over `size / num_draws` offsets in a row, every row has its turn.
    """
    start = row + offset
    return (start + 1) * num_draws // size > start * num_draws // size


def drawn_rows(size: int, quota: int, offset: int) -> list[int]:
    """Return the rows that an epoch draws: all as often as the quota holds them, then some evenly."""
    if not size:
        return []
    rest = quota % size
    passes = [row for _ in range(quota // size) for row in range(size)]
    return passes + [row for row in range(size) if is_drawn(row, size, rest, offset)]


def draws(
    read: Callable[[], Iterable[Item]], size: int, quota: int, offset: int, skip: int = 0
) -> Iterator[Item]:
    """Yield the rows of `drawn_rows` without holding them, reading a data set as often as that needs.

    A data set that has fewer rows than it said is simply read again earlier.

    Args:
        read: Starts to read.
        size: How many rows it has, about.
        quota: How many are drawn.
        offset: Of those that are drawn when not all are.
        skip: How many draws to leave out at the beginning.

    Raises:
        DataError: When there is no row at all.
    """

    # The pass of which some rows only are drawn; the passes after it make up for rows that were missing.
    partial = quota // size if size and quota % size else None

    def drawn() -> Iterator[Item]:
        for number in count():
            is_empty = True
            for row, item in enumerate(read()):
                is_empty = False
                if number != partial or is_drawn(row, size, quota % size, offset):
                    yield item
            if is_empty:
                raise DataError("the data set has no rows, though it said that it has some")

    return islice(drawn(), skip, quota) if quota else iter(())


def interleaved(quotas: Sequence[int]) -> Iterator[int]:
    """Yield the number of the data set of each draw of an epoch, each data set's spread evenly over it."""
    heap = [(0.5 / quota, number, 0) for number, quota in enumerate(quotas) if quota]
    heapq.heapify(heap)
    while heap:
        _, number, done = heap[0]
        yield number
        if done + 1 < quotas[number]:
            heapq.heapreplace(heap, ((done + 1.5) / quotas[number], number, done + 1))
        else:
            heapq.heappop(heap)


def streamed(
    reads: Sequence[Callable[[], Iterable[Item]]],
    sizes: Sequence[int],
    quotas: Sequence[int],
    *,
    epoch: int,
    position: int,
    seed: int,
    window: int,
) -> Iterator[Item]:
    """Yield the items of an epoch from a position on, with no more than `window` of them in memory.

    The draws of all data sets are interleaved; each `window` of them in a row is shuffled. The draws before
    the position's window are read but not kept.

    Args:
        reads: Start to read each data set.
        sizes: How many rows each has, about.
        quotas: How many draws each has.
        epoch: Number of the epoch.
        position: Number of its first draw to be yielded.
        seed: Of the shuffling, and of which rows are drawn where not all are.
        window: How many are shuffled among each other; 1 leaves them as they are.
    """
    first = position // window
    order = interleaved(quotas)
    done = Counter(islice(order, first * window))
    sources = [
        draws(read, size, quota, draw_offset(number, epoch, seed), done[number])
        for number, (read, size, quota) in enumerate(zip(reads, sizes, quotas, strict=True))
    ]
    items = (next(sources[number]) for number in order)
    skip = position - first * window
    for number in count(first):
        buffer = list(islice(items, window))
        if not buffer:
            return
        random.Random(_number(f"window {number} of epoch {epoch} with seed {seed}")).shuffle(buffer)
        buffer = buffer[skip:][::-1]
        skip = 0
        while buffer:
            yield buffer.pop()


def draw_offset(source: int, epoch: int, seed: int) -> int:
    """Return where an epoch begins to draw from a data set of which it doesn't draw all rows."""
    return epoch + _number(f"offset of data set {source} with seed {seed}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
