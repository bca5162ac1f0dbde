"""Run the application with uvicorn, and drain it on a signal."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from types import FrameType

import uvicorn

from basereward.serving.app import Server
from basereward.serving.connection import BACKLOG, Connections
from basereward.serving.memory import trim_heap
from basereward.serving.repeats import without_repeats

KEEP_ALIVE_SECONDS = 75
"""Seconds that a connection is kept for its next request."""
READING_GRACE_SECONDS = 10
"""Seconds that clients have at the end to read their answers."""
TICKS = 10
"""Ticks of uvicorn a second."""
TRIM_SECONDS = 5
"""Seconds from one time that free memory is given back to the next."""


class Runner(uvicorn.Server):
    """Serves until a signal, then refuses new requests, answers those in flight, and ends."""

    def __init__(self, server: Server, *, host: str, port: int, log_level: str = "warning") -> None:
        self.connections = Connections(server.admission.limits, server.metrics)
        super().__init__(
            uvicorn.Config(
                server.app,
                host=host,
                port=port,
                http=self.connections.connect,  # type: ignore[arg-type]  # called as a class would be
                ws="none",
                lifespan="on",
                log_level=log_level,
                access_log=log_level in ("info", "debug"),
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=self.connections.backlog,
            )
        )
        self.server = server

    @property
    def bound_port(self) -> int:
        """The port it listens at."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Serve until told to end; what clients can write into the log is written once a minute."""
        with without_repeats():
            await super().serve()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and print the address."""
        await super().startup()
        for listening in self.servers[0].sockets:
            # Few are accepted at once where descriptors are few, but no more than usual have to knock again.
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                same.listen(BACKLOG)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        names = ", ".join(self.server.engines)
        print(f"serving {names} on http://{host}:{self.bound_port}", file=sys.stderr, flush=True)
        bound = self.connections.bound
        if bound < self.server.admission.limits.connections:
            print(
                f"at most {bound:,} connections, since the process may have no more descriptors (ulimit -n)",
                file=sys.stderr,
                flush=True,
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining; at the second signal, end at once."""
        admission = self.server.admission
        if admission.is_draining:
            print(admission.summary(), file=sys.stderr, flush=True)
            os._exit(1)  # threads that score or parse would keep the process until they are done
        admission.drain()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; called ten times a second."""
        admission = self.server.admission
        admission.end_reading()
        if counter % TICKS == 0:
            self.connections.close_overdue()
        if counter % (TRIM_SECONDS * TICKS) == 0:
            asyncio.get_running_loop().run_in_executor(None, trim_heap)
        if admission.is_draining and admission.is_idle:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Stop listening, and end when clients have read their answers or had the time to."""
        closing = asyncio.get_running_loop().call_later(READING_GRACE_SECONDS, self.connections.close_all)
        try:
            await super().shutdown()
        finally:
            closing.cancel()
