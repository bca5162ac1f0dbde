"""Requests to the server: a path in the first line, a body after it. None of them is a 500."""

from __future__ import annotations

import asyncio
import atexit
import base64
import io
import json
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import PIL.Image

from basereward import RewardModel
from basereward.config import Component
from basereward.serving.apis import apis
from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine
from basereward.serving.limits import Limits
from basereward.serving.problems import PROBLEMS


def image() -> str:
    """Return a small image as base64."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (9, 7)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image()}"}}
TURNS = [
    {"role": "user", "content": [PART, {"type": "text", "text": "q"}]},
    {"role": "assistant", "content": "a"},
]
CHAT = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
BODIES: list[tuple[str, object]] = [
    (
        "/v1/rewards",
        {"items": [{"prompt": "q <image>", "images": [image()], "responses": ["a", "b"]}], "model": "m"},
    ),
    ("/v1/rewards", {"items": [{"messages": TURNS, "id": "x"}], "on_error": "null"}),
    ("/get_reward", {"query": ["qa"], "prompts": ["q"], "labels": [None], "images": [[image()]]}),
    ("/classify", {"messages": TURNS, "use_activation": False}),
    ("/classify", {"text": [CHAT], "image_data": [[image()]]}),
    ("/pooling", {"input": CHAT, "encoding_format": "base64"}),
    ("/score", {"queries": {"content": [PART]}, "documents": ["a", "b"]}),
    ("/rerank", {"query": "q", "documents": ["a", "b"], "top_n": 1}),
    ("/rerank", {"query": "q", "texts": ["a"], "return_text": True}),
    ("/v1/embeddings", {"input": [{"text": CHAT, "image": image()}]}),
    ("/predict", {"inputs": [["q", "a"], [CHAT]], "raw_scores": True}),
    ("/v1/score/evaluation", {"messages": [CHAT], "model": "x"}),
    ("/reward?key=x", {"prompt": "q", "response": "a</s><pad>"}),
]
SEEDS = [f"{path}\n{json.dumps(body)}".encode() for path, body in BODIES]
TOKENS = [
    *(path.encode() + b"\n" for api in apis() for path in api.paths),
    *(json.dumps(name).encode() + b":" for api in apis() for name in api.request_type.__struct_fields__),
    b"<|im_start|>system\\n",
    b"<|im_end|>" * 50,
    b"<pad>" * 50,
    b"<image>",
    b"<|image_pad|>",
    b"\\ud800",
    b"\\u0000",
    b"\\ue000",
    b"9" * 401,
    b"1e400",
    b"NaN",
    b"null",
    b"[" * 2000,
    b'{"a":' * 500,
    b'"../../etc/passwd"',
    b'"http://127.0.0.1/"',
    b"data:image/png;base64,",
]
STATUSES = {200, *(status for status, _ in PROBLEMS.values())} - {500}
HEADERS = [(b"host", b"localhost"), (b"content-type", b"application/json")]


@cache
def served() -> tuple[asyncio.AbstractEventLoop, Server]:
    """Start a server of a small model without a socket."""
    loop = asyncio.new_event_loop()
    model = RewardModel.build(backbone=Component("tiny", {}))
    server = Server([ModelEngine("m", model)], Limits(seconds=10, image_pixels=1 << 16))
    stack = AsyncExitStack()
    loop.run_until_complete(stack.enter_async_context(server.app.router.lifespan_context(server.app)))

    def close() -> None:
        loop.run_until_complete(stack.aclose())
        loop.close()

    atexit.register(close)
    return loop, server


async def respond(server: Server, target: str, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the response to a request."""
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": HEADERS,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    events = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if (event := next(events, None)) is not None:
            return event
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await server.app(scope, receive, send)
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


def refuse_constant(name: str) -> None:
    """Refuse numbers that JSON has not."""
    raise AssertionError(f"the answer has {name}")


def check(data: bytes) -> None:
    """Send a request, whose answer is a reward or a problem in JSON."""
    loop, server = served()
    path, _, body = data.partition(b"\n")
    target = path.decode("latin-1")
    status, answer = loop.run_until_complete(respond(server, target, body))
    assert status in STATUSES, (status, answer)
    json.loads(answer, parse_constant=refuse_constant)
    assert b"Traceback" not in answer
    assert server.admission.num_answering == 0
    assert server.service.memory.reserved == 0
    assert server.scheduler.waiting_tokens == 0
