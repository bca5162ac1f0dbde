"""Memory: that of prepared images is reserved before they are made, and what is free is given back."""

from __future__ import annotations

import asyncio
import ctypes
from collections import deque
from contextlib import suppress


class MemoryBudget:
    """Bytes that requests reserve in the order of their arrival. Lives in one event loop.

    Args:
        limit: The most bytes that are reserved at a time.

    Attributes:
        reserved: Bytes that are reserved.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, num_bytes: int) -> None:
        """Wait until as many bytes are free, no more than the limit, and reserve them."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((num_bytes, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(num_bytes)
            else:
                granted.cancel()
                self._grant()
            raise

    def release(self, num_bytes: int) -> None:
        """Give bytes back."""
        self.reserved -= num_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            num_bytes, granted = self._waiting[0]
            if not granted.done():
                if self.reserved + num_bytes > self.limit:
                    return
                self.reserved += num_bytes
                granted.set_result(None)
            self._waiting.popleft()


def trim_heap() -> None:
    """Give free memory back to the system, which glibc keeps between what is in use; elsewhere do nothing.

    Images and bodies come and go in megabytes, in several threads, each of which has a heap of its own.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
