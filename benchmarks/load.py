"""A server process to measure, and light clients for it: HTTP/1.1, a connection each."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basereward.hardware.parent import ended_with_parent


@dataclass
class Connection:
    """Sends requests one after the other."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes, *, pieces: int = 1, pause: float = 0.0) -> tuple[int, Any]:
        """Return the status and the body of the answer, which is JSON.

        Args:
            path: Where to.
            body: JSON.
            pieces: In how many pieces the body is sent.
            pause: Seconds between them.

        Raises:
            ConnectionError: When there is no answer.
        """
        await self.send(path, body, pieces=pieces, pause=pause)
        return await self.receive()

    async def send(self, path: str, body: bytes, *, pieces: int = 1, pause: float = 0.0) -> None:
        """Send a request."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        size = -(-len(body) // pieces) or 1
        self.writer.write(head.encode() + body[:size])
        for start in range(size, len(body), size):
            await self.writer.drain()
            await asyncio.sleep(pause)
            self.writer.write(body[start : start + size])
        await self.writer.drain()

    async def receive(self) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        assert self.reader is not None
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("no answer") from error
        length = re.search(r"\r\ncontent-length: (\d+)", head)
        answer = await self.reader.readexactly(int(length[1])) if length else b"null"
        if "\r\nconnection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), json.loads(answer)

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Served:
    """A server process."""

    process: subprocess.Popen[str]
    port: int

    def resident_bytes(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def starved_seconds(self) -> float:
        """Return for how long its main thread had work but no processor.

        Raises:
            OSError: When it has ended.
        """
        text = Path(f"/proc/{self.process.pid}/schedstat").read_text()
        if self.process.returncode is not None or not text.strip():
            raise ProcessLookupError
        return int(text.split()[1]) / 1e9

    def terminate(self) -> str:
        """Send SIGTERM, and return the rest of its stderr."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        if self.process.wait(60) != 0:
            raise SystemExit(f"the server ended with {self.process.returncode}: {said}")
        return said


@contextmanager
def served(*arguments: object) -> Iterator[Served]:
    """Run `basereward serve` on a free port."""
    command = [sys.executable, "-m", "basereward", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ended_with_parent())
    assert process.stderr is not None
    try:
        said = ""
        while not (address := re.search(r"on http://\S+:(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server doesn't start: {said}")
            said += line
        yield Served(process, int(address[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
