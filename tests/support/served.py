"""A server on a local port, its client, and an engine without a model."""

from __future__ import annotations

import base64
import http.client
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from basereward.comparison import Comparison
from basereward.prepared import Prepared, Size
from basereward.serving.app import Server
from basereward.serving.engine import Rewards
from basereward.serving.problems import Problem
from basereward.serving.runner import Runner
from basereward.stats.calibration import Calibration

JSON = {"Content-Type": "application/json"}


@dataclass
class Reply:
    """A response."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of the problem."""
        return str(self.json["error"]["code"])


@dataclass
class Client:
    """Sends requests to a server, each over a connection of its own."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.headers, **headers})
            response = connection.getresponse()
            return Reply(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read().decode(),
            )
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: object, **headers: str) -> Reply:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, encoded, **{**JSON, **headers})

    def rewards(self, *items: object, **more: object) -> Reply:
        return self.post("/v1/rewards", {"items": list(items), **more})


class Echo:
    """An engine whose reward of a response is its number of characters; `crash` and `poison` make it fail.

    `gate` holds passes back while it is cleared. `passes` are the responses of each pass, tree by tree.
    """

    model_digest = "digest-of-model"
    template_digest = "digest-of-template"
    calibration = Calibration(2.0, mean=1.0)
    computed: ClassVar[dict[str, str]] = {"device": "cpu", "precision": "fp32"}

    def __init__(self, name: str = "echo", *, pads: bool = False, shares_prefix: bool = False) -> None:
        self.name = name
        self.pads = pads
        self.shares_prefix = shares_prefix
        self.gate = threading.Event()
        self.gate.set()
        self.passes: list[list[tuple[str, ...]]] = []

    def image_bytes(self, comparison: Comparison) -> int:
        return sum(24 * width * height for width, height in (image.size() for image in comparison.images))

    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        texts = [*(message.text for message in comparison.prompt), *comparison.responses]
        return Prepared(comparison, None, Size(sum(map(len, texts))))

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        if len(batch) == 1:
            return batch[0]
        responses = [text for one in batch for text in one.comparison.responses]
        return self.prepare(Comparison(batch[0].comparison.prompt, responses))

    def score(self, batch: Sequence[Prepared[Any]]) -> list[Rewards | Problem]:
        self.gate.wait(60)
        self.passes.append([one.comparison.responses for one in batch])
        if any("crash" in text for one in batch for text in one.comparison.responses):
            raise RuntimeError("a secret of /etc/passwd")
        return [
            Problem("no_score")
            if "poison" in "".join(one.comparison.responses)
            else Rewards([float(len(text)) for text in one.comparison.responses])
            for one in batch
        ]


@contextmanager
def running(server: Server) -> Iterator[Client]:
    """Run a server in a thread."""
    runner = Runner(server, host="127.0.0.1", port=0)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        eventually(lambda: runner.started or not thread.is_alive())
        yield Client(runner.bound_port)
    finally:
        runner.should_exit = True
        thread.join()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def encoded(image: Any, format: str = "PNG") -> str:
    """Return an image's file as base64."""
    buffer = io.BytesIO()
    image.save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode()


def chatml(*turns: tuple[str, str], asks: bool = False) -> str:
    """Return turns as Qwen's template renders them; `asks` where the assistant is to speak next."""
    whole = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return whole + ("<|im_start|>assistant\n" if asks else "")


def png_that_declares(width: int, height: int) -> str:
    """Return a PNG of few bytes that says it has many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    whole = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
    return base64.b64encode(whole).decode()
