"""Continuous batching without a timer: a batch is whatever waits when the device becomes free.

A request that finds the device free is scored at once, alone; requests that arrive meanwhile form the next
batch. So there are no settings to trade latency for throughput.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from basereward.prepared import Prepared, Size
from basereward.scoring.batching import MicroBatchLimits
from basereward.serving.engine import Engine, Rewards
from basereward.serving.problems import Problem, log_failure

if TYPE_CHECKING:
    from basereward.serving.limits import Limits
    from basereward.serving.metrics import Metrics

WINDOW = 4
"""Comparisons searched for those that fit, in batches; the oldest always goes first."""

MAX_JOINED = 256
"""Comparisons in a tree, which is made anew for each that joins."""


@dataclass
class Entry:
    """A comparison that waits."""

    prepared: Prepared[Any]
    result: asyncio.Future[Rewards | Problem]
    arrived: float

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.result.done()


@dataclass
class Group:
    """Comparisons with the same prompt, to be scored as one tree."""

    engine: Engine
    entries: list[Entry]
    size: Size

    def tree(self) -> Prepared[Any]:
        """Return the comparisons as one."""
        return self.engine.join([entry.prepared for entry in self.entries])


class Scheduler:
    """Queues comparisons, and runs them in batches on the device. Lives in one event loop."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.waiting_tokens = 0
        metrics.waiting_tokens.set_function(lambda: self.waiting_tokens)
        self._groups: list[Group] = []
        self._open: dict[tuple[int, Hashable], Group] = {}
        self._arrival = asyncio.Event()
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="basereward-device")

    def submit(
        self, engine: Engine, prepared: Sequence[Prepared[Any]]
    ) -> list[asyncio.Future[Rewards | Problem]]:
        """Queue comparisons, and return futures of their results; cancelling one takes it out of the queue.

        Raises:
            Problem: When the queue is full.
        """
        num_tokens = sum(one.size.tokens for one in prepared)
        if self.waiting_tokens and self.waiting_tokens + num_tokens > self.limits.waiting_tokens:
            raise Problem("too_many_requests")
        loop = asyncio.get_running_loop()
        entries = [Entry(one, loop.create_future(), time.perf_counter()) for one in prepared]
        for entry in entries:
            self._place(engine, entry)
        self.waiting_tokens += num_tokens
        self._arrival.set()
        return [entry.result for entry in entries]

    def _place(self, engine: Engine, entry: Entry) -> None:
        """Put a comparison into a waiting group with its prompt, or into a new one."""
        prompt = entry.prepared.comparison.prompt_identity() if engine.shares_prefix else None
        key = (id(engine), prompt)
        group = None if prompt is None else self._open.get(key)
        if group is not None and len(group.entries) < MAX_JOINED:
            joined = engine.join([*(one.prepared for one in group.entries), entry.prepared])
            if self._batch_limits(engine).fits([joined.size]):
                group.entries.append(entry)
                group.size = joined.size
                self.metrics.joined.inc()
                return
        group = Group(engine, [entry], entry.prepared.size)
        self._groups.append(group)
        if prompt is not None:
            self._open[key] = group

    async def run(self) -> None:
        """Score what waits, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrival.wait()
            batch = self._take()
            if not batch:
                self._arrival.clear()
                continue
            started = time.perf_counter()
            trees = [group.tree() for group in batch]
            results: Sequence[Rewards | Problem]
            try:
                results = await loop.run_in_executor(self._device, batch[0].engine.score, trees)
            except Exception as error:
                log_failure("an engine", error)
                results = [Problem("engine_failed")] * len(batch)
            self.metrics.saw_batch(
                num_items=sum(len(group.entries) for group in batch),
                num_tokens=sum(tree.size.tokens for tree in trees),
                waits=[started - entry.arrived for group in batch for entry in group.entries],
                seconds=time.perf_counter() - started,
            )
            for group, result in zip(batch, results, strict=True):
                self._hand_out(group, result)

    def close(self) -> None:
        """Shut the device's thread down without waiting for a forward pass that runs."""
        self._device.shutdown(wait=False)

    def _hand_out(self, group: Group, result: Rewards | Problem) -> None:
        if isinstance(result, Problem) and len(group.entries) > 1:
            # One comparison of the tree is at fault; each is retried alone, so that only that one fails.
            for entry in group.entries:
                if not entry.is_dead:
                    self._groups.append(Group(group.engine, [entry], entry.prepared.size))
                    self.waiting_tokens += entry.prepared.size.tokens
            self._arrival.set()
            return
        start = 0
        for entry in group.entries:
            stop = start + len(entry.prepared.comparison.responses)
            if not entry.is_dead:
                entry.result.set_result(result if isinstance(result, Problem) else result.part(start, stop))
            start = stop

    def _take(self) -> list[Group]:
        """Take a batch out of the queue: the oldest group, and others of its model that fit with it."""
        self._drop_dead()
        if not self._groups:
            return []
        head = self._groups[0]
        others = [group for group in self._groups[1:] if group.engine is head.engine]
        others = others[: WINDOW * self.limits.batch_items]
        if head.engine.pads:
            others.sort(key=lambda group: abs(group.size.tokens - head.size.tokens))
        batch_limits = self._batch_limits(head.engine)
        batch, sizes = [head], [head.size]
        for group in others:
            if len(batch) == batch_limits.comparisons:
                break
            if batch_limits.fits([*sizes, group.size]):
                batch.append(group)
                sizes.append(group.size)
        taken = {id(group) for group in batch}
        self._groups = [group for group in self._groups if id(group) not in taken]
        self._open = {key: group for key, group in self._open.items() if id(group) not in taken}
        self.waiting_tokens -= sum(entry.prepared.size.tokens for group in batch for entry in group.entries)
        return batch

    def _drop_dead(self) -> None:
        """Remove comparisons that were cancelled."""
        if not any(entry.is_dead for group in self._groups for entry in group.entries):
            return
        for group in self._groups:
            dead = [entry for entry in group.entries if entry.is_dead]
            if not dead:
                continue
            self.waiting_tokens -= sum(entry.prepared.size.tokens for entry in dead)
            self.metrics.dropped.inc(len(dead))
            group.entries = [entry for entry in group.entries if not entry.is_dead]
            if group.entries:
                group.size = group.tree().size
        self._groups = [group for group in self._groups if group.entries]
        self._open = {key: group for key, group in self._open.items() if group.entries}

    def _batch_limits(self, engine: Engine) -> MicroBatchLimits:
        limits = self.limits
        return MicroBatchLimits(limits.batch_items, limits.batch_tokens, limits.batch_patches, engine.pads)
