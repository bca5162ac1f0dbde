"""Admission of requests: keys, the number of requests and bytes in flight, and draining."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from basereward.serving.access import Access
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem


class Admission:
    """Admits requests up to the limits, and counts those in flight. Lives in one event loop.

    Attributes:
        is_draining: Whether new requests are refused because the server shuts down.
        num_answering: Requests in flight.
        num_answered: Requests whose client got a response.
    """

    def __init__(self, limits: Limits, access: Access) -> None:
        self.limits = limits
        self.access = access
        self.is_draining = False
        self.num_answering = 0
        self.num_answered = 0
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
