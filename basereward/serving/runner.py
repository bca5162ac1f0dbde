"""Running the application with uvicorn, to the last answer."""

from __future__ import annotations

import sys
from types import FrameType

import uvicorn

from basereward.serving.app import Server


class Runner(uvicorn.Server):
    """Serves until a signal, then answers what has come, refuses what comes, and ends.

    Args:
        server: What is served.
        host: Where to listen.
        port: Where to listen; 0 for any that is free.
    """

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
        """Listen, and say where."""
        await super().startup()
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        names = ", ".join(self.server.engines)
        print(f"serving {names} on http://{host}:{self.bound_port}", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; end at once when asked again."""
        if self.server.is_draining:
            self.force_exit = self.should_exit = True
        self.server.drain()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end, ten times a second."""
        if self.server.is_draining and self.server.is_idle:
            self.should_exit = True
        return await super().on_tick(counter)
