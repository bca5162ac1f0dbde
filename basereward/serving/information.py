"""What GET answers: health, models, metrics, limits, the OpenAPI document, and a page to try it all on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from basereward._version import __version__
from basereward.serving.apis import dialects
from basereward.serving.openapi import document

if TYPE_CHECKING:
    from basereward.serving.app import Server

JSON = "application/json"
PAGE = "page.html"


class Information:
    """What a server says of itself.

    Args:
        server: Whose.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._document = document(dialects())
        self._page = files("basereward.serving").joinpath(PAGE).read_text(encoding="utf-8")

    def routes(self) -> list[Route]:
        """Return the paths; liveness, readiness and the page itself need no key."""
        guarded = {
            "/v1/models": self._models,
            "/metrics": self._metrics,
            "/version": self._version,
            "/openapi.json": self._openapi,
        }
        return [
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/", self._home),
            *(Route(path, self.server.guarded(endpoint)) for path, endpoint in guarded.items()),
        ]

    async def _health(self, request: Request) -> Response:
        return answer({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        is_ready = self.server.is_ready
        return answer({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    async def _models(self, request: Request) -> Response:
        data = [
            {
                "id": engine.name,
                "object": "model",
                "owned_by": "basereward",
                "model_digest": engine.model_digest,
                "template_digest": engine.template_digest,
            }
            for engine in self.server.engines.values()
        ]
        return answer({"object": "list", "data": data})

    async def _metrics(self, request: Request) -> Response:
        metrics = self.server.metrics
        metrics.waiting_tokens.set(self.server.scheduler.waiting_tokens)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _version(self, request: Request) -> Response:
        return answer({"version": __version__, "limits": asdict(self.server.limits)})

    async def _openapi(self, request: Request) -> Response:
        return answer(self._document)

    async def _home(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(self._page.replace("NONCE", nonce), headers=headers, media_type="text/html")


def answer(body: Mapping[str, Any], status: int = 200) -> Response:
    """Return a response of JSON."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)
