"""An event loop in a thread of its own, which runs while somebody uses it and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    """Holds connections of one event loop."""

    async def close(self) -> None:
        """Close them."""


Resource = TypeVar("Resource", bound=Closable)
Value = TypeVar("Value")


class LoopThread(Generic[Resource]):
    """Runs coroutines of several threads in one event loop, with one resource that they share.

    Args:
        make: Makes the resource, in the loop, each time the loop is started.
    """

    def __init__(self, make: Callable[[], Resource]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._num_users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._resource: Resource | None = None

    def run(self, work: Callable[[Resource], Coroutine[Any, Any, Value]]) -> Value:
        """Return what a coroutine returns; other threads may call meanwhile."""
        with self._running() as (loop, resource):
            future = asyncio.run_coroutine_threadsafe(work(resource), loop)
            try:
                return future.result()
            except BaseException:
                future.cancel()
                raise

    @contextmanager
    def _running(self) -> Iterator[tuple[asyncio.AbstractEventLoop, Resource]]:
        with self._lock:
            if self._num_users == 0:
                self._start()
            self._num_users += 1
        assert self._loop is not None
        assert self._resource is not None
        try:
            yield self._loop, self._resource
        finally:
            with self._lock:
                self._num_users -= 1
                if self._num_users == 0:
                    self._stop()

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="basereward-writer", daemon=True)
        self._thread.start()

        async def make() -> Resource:
            return self._make()

        try:
            self._resource = asyncio.run_coroutine_threadsafe(make(), self._loop).result()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        resource, self._resource = self._resource, None

        async def close() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if resource is not None:
                await resource.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def gather_all(work: list[Awaitable[Value]]) -> list[Value]:
    """Return all results in order; the first exception cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
