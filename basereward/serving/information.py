"""GET endpoints: health, models, metrics, limits, the API for programs and readers, a page to try it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from basereward._version import __version__
from basereward.serving.api_page import api_page
from basereward.serving.engine import Engine
from basereward.serving.limits import Limits
from basereward.serving.metrics import Metrics
from basereward.serving.responses import Endpoint, json_response

PAGE = "page.html"


class Information:
    """The endpoints that describe a server."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        limits: Limits,
        document: Mapping[str, Any],
        is_ready: Callable[[], bool],
    ) -> None:
        self.engines = engines
        self.metrics = metrics
        self.limits = limits
        self.is_ready = is_ready
        self._document = document
        self._page = files("basereward.serving").joinpath(PAGE).read_text(encoding="utf-8")
        self._api_page = api_page(document)

    def routes(self, guarded: Callable[[Endpoint], Endpoint]) -> list[Route]:
        """Return the routes; liveness, readiness and the pages, which say nothing of the models, need no key;
        the others are guarded.
        """
        endpoints = {
            "/v1/models": self._models,
            "/metrics": self._metrics,
            "/version": self._version,
            "/openapi.json": self._openapi,
        }
        return [
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/", self._home),
            Route("/docs", self._docs),
            *(Route(path, guarded(endpoint)) for path, endpoint in endpoints.items()),
        ]

    async def _health(self, request: Request) -> Response:
        return json_response({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        if self.is_ready():
            return json_response({"status": "ready"})
        return json_response({"status": "not ready"}, 503)

    async def _models(self, request: Request) -> Response:
        data = [
            {
                "id": engine.name,
                "object": "model",
                "owned_by": "basereward",
                "model_digest": engine.model_digest,
                "template_digest": engine.template_digest,
                "temperature": engine.calibration.temperature,
                **engine.computed,
            }
            for engine in self.engines.values()
        ]
        return json_response({"object": "list", "data": data})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _version(self, request: Request) -> Response:
        return json_response({"version": __version__, "limits": asdict(self.limits)})

    async def _openapi(self, request: Request) -> Response:
        return json_response(self._document)

    async def _home(self, request: Request) -> Response:
        return _page_response(self._page, "script-src 'nonce-NONCE'; connect-src 'self'; img-src blob: data:")

    async def _docs(self, request: Request) -> Response:
        return _page_response(self._api_page, "script-src 'none'")


def _page_response(page: str, policy: str) -> Response:
    """Return a page that loads nothing from elsewhere, with a nonce of its own wherever it has `NONCE`."""
    policy = (
        f"default-src 'none'; {policy}; style-src 'nonce-NONCE'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    nonce = secrets.token_urlsafe(16)
    headers = {
        "Content-Security-Policy": policy.replace("NONCE", nonce),
        "X-Content-Type-Options": "nosniff",
    }
    return Response(page.replace("NONCE", nonce), headers=headers, media_type="text/html")
