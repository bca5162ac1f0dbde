"""Chat completions as an API of a judge's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basereward.writers.chat_completions import Capabilities, body_of, completion_of
from basereward.writers.http_sender import HttpSender
from basereward.writers.probe import probe
from basereward.writers.request import Completion, Request


class ChatApi:
    """The API of a server of OpenAI's chat completions."""

    takes_options = False
    cache_key = ()

    def path(self, capabilities: Capabilities) -> str:
        """Return the path of requests, below the base URL."""
        return "/chat/completions"

    def body(
        self, request: Request, model: str, capabilities: Capabilities, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the body of a request; see `body_of`."""
        return body_of(request, model, capabilities, extra)

    def completion(self, answer: Any, request: Request) -> Completion:
        """Return the completion of an answer; see `completion_of`."""
        return completion_of(answer, request)

    async def probe(
        self, sender: HttpSender, model: str, extra: dict[str, Any], *, may_upload: bool
    ) -> Capabilities:
        """Return what a server heeds; see `probe`."""
        return await probe(sender, model, extra, may_upload=may_upload)
