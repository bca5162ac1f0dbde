"""A server of typed decisions, an ASGI app whose answers a function gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from judge_server import Fault, request_body, send_answer

Respond = Callable[[str, dict[str, Any]], "tuple[int, Any]"]
"""Returns status and answer from the path and the body of a request."""


@dataclass
class DecisionServer:
    """Answers by `respond`.

    Attributes:
        asked: The path and the body of each request.
    """

    respond: Respond
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = await request_body(scope, receive, send)
        if content is None:
            return
        if scope["path"] == "/v1/models":
            status, answer = 200, {"data": [{"id": "decider"}]}
        else:
            self.asked.append((scope["path"], json.loads(content)))
            status, answer = self.respond(*self.asked[-1])
        await send_answer(send, Fault(status), json.dumps(answer).encode())


def pipeline_server(pipeline: Any) -> DecisionServer:
    """Return a server of transformers' decision pipeline, which answers as `transformers serve` does."""

    def respond(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != "/v1/systemone":
            return 404, {"detail": "Not Found"}
        if unknown := body.keys() - {"model", "state", "questions", "assets"}:
            return 422, {"detail": [{"loc": ["body", min(unknown)], "type": "extra_forbidden"}]}
        request = {name: body[name] for name in ("state", "questions", "assets") if name in body}
        try:
            inputs = pipeline.preprocess(request)
        except ValueError as error:
            return 400, {"detail": str(error)}
        answers = pipeline.postprocess(pipeline.forward(inputs))
        num_tokens = sum(prompt["input_ids"].shape[-1] for prompt, _ in inputs["prompts"])
        usage = {"input_tokens": num_tokens, "output_tokens": 0}
        return 200, {"model": body["model"], "answers": answers, "usage": usage}

    return DecisionServer(respond)
