"""Run the application with uvicorn, and drain it on a signal."""

from __future__ import annotations

import sys
from types import FrameType

import uvicorn

from basereward.serving.app import Server


class Runner(uvicorn.Server):
    """Serves until a signal, then refuses new requests, answers those in flight, and ends."""

    def __init__(self, server: Server, *, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                server.app,
                host=host,
                port=port,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
            )
        )
        self.server = server

    @property
    def bound_port(self) -> int:
        """The port it listens at."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and print the address."""
        await super().startup()
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        names = ", ".join(self.server.engines)
        print(f"serving {names} on http://{host}:{self.bound_port}", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining; at the second signal, end at once."""
        if self.server.admission.is_draining:
            self.force_exit = self.should_exit = True
        self.server.admission.drain()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; called ten times a second."""
        if self.server.admission.is_draining and self.server.admission.is_idle:
            self.should_exit = True
        return await super().on_tick(counter)
