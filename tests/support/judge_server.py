"""A server of chat completions, an ASGI app of ours, which does wrong whatever it is told to."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvicorn

Served = TypeVar("Served")


@dataclass
class Fault:
    """An answer that is not the right one.

    Args:
        status: Its status.
        body: Its bytes; None for the right answer.
        headers: Of it.
        seconds: Before it begins.
        cut: Whether the connection is dropped in the middle of the body.
        change: Changes the right answer.
    """

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cut: bool = False
    change: Callable[[dict[str, Any]], Any] = lambda answer: answer


@dataclass
class JudgeServer:
    """Prefers the response that has more words, by text and by log-probabilities.

    Attributes:
        faults: Returns the fault of a request, from its number and its body; None for none. Probes have none.
        model: The name of its model.
        gives_logprobs: Whether it heeds `logprobs`.
        reads_images: Whether it answers requests with images.
        heeds_n: Whether it gives several completions.
        asked: The bodies of all requests but probes, as they came.
        headers: Their headers.
        most_in_flight: The most requests at one time.
    """

    faults: Callable[[int, dict[str, Any]], Fault | None] = lambda number, body: None
    model: str = "words-1"
    gives_logprobs: bool = True
    reads_images: bool = True
    heeds_n: bool = True
    probe_faults: Callable[[dict[str, Any]], Fault | None] = lambda body: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_answered: int = 0
    num_in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = await request_body(scope, receive, send)
        if content is None:
            return
        if scope["path"] == "/v1/models":
            await send_answer(send, Fault(), json.dumps({"data": [{"id": self.model}]}).encode())
            return
        body = json.loads(content)
        if "Which number is written here" in _text(body):
            self.probes.append(body)
            fault = self.probe_faults(body) or Fault()
            if _has_image(body) and not self.reads_images:
                # As llama.cpp says it, which no retry cures.
                fault = Fault(500, b'{"error": {"message": "image input is not supported"}}')
            await self._answer(send, fault, body)
            return
        number = len(self.asked)
        self.asked.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        try:
            fault = self.faults(number, body) or Fault()
            await asyncio.sleep(fault.seconds)
            await self._answer(send, fault, body)
        finally:
            self.num_in_flight -= 1

    async def _answer(self, send: Any, fault: Fault, body: dict[str, Any]) -> None:
        content = fault.body
        if content is None:
            content = json.dumps(fault.change(self.right_answer(body))).encode()
        await send_answer(send, fault, content)
        self.num_answered += 1

    def right_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a chat completion whose verdict is for the response of more words."""
        first, second = responses_of(_text(body))
        margin = float(len(first.split()) - len(second.split()))
        verdict = "1" if margin > 0 else "2"
        is_reasoned = "<think>" in _text(body)
        text = f"<think>I count words.</think><answer>{verdict}</answer>" if is_reasoned else verdict
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": None,
        }
        if body.get("logprobs") and self.gives_logprobs:
            first_share = 1 / (1 + math.exp(-margin))
            tokens = [("1", 0.7 * first_share), ("2", 0.7 * (1 - first_share)), (" 1", 0.2 * first_share)]
            tokens += [(" 2", 0.2 * (1 - first_share)), ("The", 0.1)]
            top = [{"token": token, "logprob": math.log(share)} for token, share in tokens]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        num = body.get("n", 1) if self.heeds_n else 1
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": self.model,
            "choices": [choice] * num,
            "usage": {
                "prompt_tokens": len(_text(body).split()) + 100 * _has_image(body),
                "completion_tokens": 2,
            },
        }


def responses_of(text: str) -> tuple[str, str]:
    """Return the two responses that a question shows."""
    match = re.search(r"\[Response 1\]\n(.*?)\n+\[Response 2\]\n(.*?)\n+(?:Which|First)", text, re.DOTALL)
    return (match[1], match[2]) if match else (text, "")


async def request_body(scope: Any, receive: Any, send: Any) -> bytes | None:
    """Return the body of a request; None after the server's life, which is no request."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return None
    content = b""
    more = True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return content


async def send_answer(send: Any, fault: Fault, content: bytes) -> None:
    headers = {"content-type": "application/json", "content-length": str(len(content)), **fault.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": pairs})
    if fault.cut:
        await send({"type": "http.response.body", "body": content[: len(content) // 2], "more_body": True})
        return  # uvicorn drops the connection of an answer that isn't whole
    await send({"type": "http.response.body", "body": content})


def _text(body: dict[str, Any]) -> str:
    texts = []
    for message in body["messages"]:
        content = message["content"]
        texts += [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return "".join(texts)


def _has_image(body: dict[str, Any]) -> bool:
    return any(
        part["type"] == "image_url"
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    )


@contextmanager
def serving(server: Served) -> Iterator[Served]:
    """Serve on a free port of this machine."""
    stop = start(server)
    try:
        yield server
    finally:
        stop()


def start(server: Any) -> Callable[[], None]:
    """Start serving, and return what stops it."""
    config = uvicorn.Config(
        server, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1
    )
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.005)
    [listening] = runner.servers
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"

    def stop() -> None:
        runner.should_exit = True
        thread.join()

    return stop
