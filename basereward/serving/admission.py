"""Admission of requests: keys, the number of requests and bytes in flight, and draining."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from basereward.serving.access import Access
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem

GRACE_SECONDS = 2
"""Seconds after a signal in which bodies that have begun to arrive may end."""
CLIENT_LEFT = 499
"""The status, never sent, of requests whose client has left (nginx's number)."""
UNANSWERED = 0
"""The status of requests whose answering was ended."""


class Admission:
    """Admits requests up to the limits, and counts those in flight. Lives in one event loop.

    Attributes:
        is_draining: Whether new requests are refused because the server shuts down.
        num_answering: Requests in flight.
        ended: The number of requests that ended with each status.
    """

    def __init__(self, limits: Limits, access: Access) -> None:
        self.limits = limits
        self.access = access
        self.is_draining = False
        self.num_answering = 0
        self.ended: Counter[int] = Counter()
        self._draining_since = 0.0
        self._reading: set[asyncio.Timeout] = set()
        self._waiting_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether every request has its response."""
        return self.num_answering == 0

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response: while draining, connections are closed."""
        return {"Connection": "close"} if self.is_draining else {}

    def drain(self) -> None:
        """Refuse new requests; those in flight are answered."""
        self.is_draining = True
        self._draining_since = time.monotonic()

    @contextmanager
    def reading(self, timeout: asyncio.Timeout) -> Iterator[None]:
        """Have the time for a body end early when the server drains."""
        self._reading.add(timeout)
        try:
            yield
        finally:
            self._reading.discard(timeout)

    def end_reading(self) -> None:
        """End the time for bodies that have not arrived though the server has been draining for a while."""
        if self.is_draining and time.monotonic() - self._draining_since >= GRACE_SECONDS:
            now = asyncio.get_running_loop().time()
            for timeout in self._reading:
                if not timeout.expired():
                    timeout.reschedule(now)
            self._reading.clear()

    def summary(self) -> str:
        """Return in words how many requests ended how."""
        refused = {status for status in self.ended if 400 <= status < 500 or status == 503} - {CLIENT_LEFT}
        failed = {status for status in self.ended if status >= 500} - {503}
        parts = [
            f"{sum(number for status, number in self.ended.items() if 200 <= status < 300):,} answered",
            f"{sum(self.ended[status] for status in refused):,} refused",
            f"{sum(self.ended[status] for status in failed):,} failed",
            f"{self.ended[CLIENT_LEFT]:,} left by their clients",
        ]
        left = self.num_answering + self.ended[UNANSWERED]
        return f"requests: {', '.join(parts)}; {left or 'none'} without an answer"

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count a request as in flight."""
        self.num_answering += 1
        try:
            yield
        finally:
            self.num_answering -= 1

    def admit(self, headers: Mapping[str, str]) -> None:
        """Raise unless a request, which is already counted as in flight, may be answered.

        Raises:
            Problem: When its key is wrong, the server drains, or too many requests are in flight.
        """
        self.access.check(headers)
        if self.is_draining:
            raise Problem("draining")
        if self.num_answering > self.limits.requests:
            raise Problem("too_many_requests")

    @contextmanager
    def holding_bytes(self) -> Iterator[Callable[[int], None]]:
        """Give a function that counts bytes of a body as held; they are released at the end.

        Raises:
            Problem: By the function, when all bodies together are over the limit.
        """
        num_held = 0

        def hold(num_bytes: int) -> None:
            nonlocal num_held
            if self._waiting_bytes + num_bytes > self.limits.waiting_bytes:
                raise Problem("too_many_requests")
            self._waiting_bytes += num_bytes
            num_held += num_bytes

        try:
            yield hold
        finally:
            self._waiting_bytes -= num_held
