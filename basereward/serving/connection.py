"""HTTP connections: their number, and time limits on headers and on clients that don't read their answers.

Uvicorn's own options don't bound them: its `limit_concurrency` answers everybody with 503 once there are too
many connections, `/health` too, and no option ends a connection before its first request is there.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from basereward.serving.apis.base import error_response
from basereward.serving.limits import Limits
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem

RESERVE = 4352
"""Descriptors for other files than connections: two rounds of accepting `BACKLOG`, and 256."""
BACKLOG = 2048
"""Connections that wait to be accepted, and that are accepted at once."""


class Connections:
    """The open connections of a server. Lives in one event loop.

    When there are too many, the one that has been without a request for longest makes room.

    Attributes:
        bound: The most connections, fewer than the process may have descriptors.
        backlog: The most connections that are accepted at once.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.bound, self.backlog = descriptors_for(limits.connections)
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # those without a request, the longest first
        metrics.connections.set_function(lambda: len(self._open))

    def connect(self, *args: Any, **options: Any) -> Connection:
        """Return the protocol of a connection that was accepted, as uvicorn makes one."""
        return Connection(self, *args, **options)

    def add(self, connection: Connection) -> None:
        """Take a connection in, and close another if there are too many."""
        if len(self._open) >= self.bound:
            longest = next(iter(self._idle), None)
            if longest is not None:
                self.close(longest, "room")
            elif len(self._open) < self.bound + self.backlog:
                connection.refuse()
                self._open.add(connection)
                return
            else:
                self.close(connection, "refused")
                return
        self._open.add(connection)
        self._idle[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def mark(self, connection: Connection, *, is_idle: bool) -> None:
        """Note whether a connection is without a request."""
        if not is_idle:
            self._idle.pop(connection, None)
        elif connection in self._open:
            self._idle.setdefault(connection)

    def close(self, connection: Connection, reason: str) -> None:
        """Close a connection at once; what its client has not read is lost."""
        self.metrics.closed_connections.labels(reason).inc()
        self.remove(connection)
        connection.transport.abort()

    def close_all(self) -> None:
        """Close every connection at once."""
        for connection in list(self._open):
            self.close(connection, "stop")

    def close_overdue(self) -> None:
        """Close connections whose headers, or whose client's reading of an answer, take too long."""
        now = time.monotonic()
        for connection in list(self._open):
            if reason := connection.overdue(now):
                self.close(connection, reason)


class Connection(H11Protocol):
    """A connection with time limits."""

    def __init__(self, connections: Connections, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.all = connections
        self._headers_since: float | None = None
        self._unread_since: float | None = None
        self._is_refused = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._headers_since = time.monotonic()
        self.all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        self.all.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; the time limit on headers runs from their first byte until their last."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._has_request:
            self._headers_since = None
        elif self._headers_since is None:
            self._headers_since = time.monotonic()
        self.all.mark(self, is_idle=not self._has_request)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self.all.mark(self, is_idle=not self._has_request)

    @property
    def _has_request(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def overdue(self, now: float) -> str:
        """Return the reason for which the client has had its time; empty if it has not."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        limits = self.all.limits
        if self._is_refused:
            # Closed at once, the answer would be lost where a request is on its way.
            return "refused" if self._headers_since is not None and now - self._headers_since > 1 else ""
        if self._unread_since is not None and now - self._unread_since > limits.reading_seconds:
            return "unread"
        if self._headers_since is not None and now - self._headers_since > limits.header_seconds:
            return "headers"
        return ""

    def refuse(self) -> None:
        """Tell the client to come again; whatever it sends is dropped until the connection is closed."""
        self._is_refused = True
        problem = Problem("too_many_requests")
        body = msgspec.json.encode(error_response(problem))
        head = (
            f"HTTP/1.1 {problem.status} Too Many Requests\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


def descriptors_for(wanted: int) -> tuple[int, int]:
    """Return the most connections, and the most that are accepted at once, within the process's limit.

    The soft limit on descriptors is raised as far as the hard one allows.

    Args:
        wanted: The most connections that are wished for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted + RESERVE:
        raised = wanted + RESERVE if hard == unlimited else min(hard, wanted + RESERVE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError):  # a system may allow fewer than its hard limit says
            pass
    if soft == unlimited or soft >= wanted + RESERVE:
        return wanted, BACKLOG
    reserve = min(RESERVE, soft // 2)
    return max(1, min(wanted, soft - reserve)), max(1, min(BACKLOG, reserve // 4))
