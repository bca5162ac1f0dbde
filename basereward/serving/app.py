"""The ASGI application: its routes, scheduler and lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from basereward.serving.access import Access
from basereward.serving.admission import Admission
from basereward.serving.apis import apis
from basereward.serving.endpoint import ScoringEndpoint
from basereward.serving.engine import Engine
from basereward.serving.information import Information
from basereward.serving.limits import Limits
from basereward.serving.metrics import Metrics
from basereward.serving.openapi import openapi_document
from basereward.serving.responses import Endpoint, ProblemHandler, router_problem
from basereward.serving.scheduler import Scheduler
from basereward.serving.service import ScoringService


class Server:
    """Engines behind an ASGI application, `app`.

    Args:
        engines: The models that are served; the first one answers requests that name none.
        limits: Bounds on requests.
        access: Checks keys.
    """

    def __init__(
        self, engines: Sequence[Engine], limits: Limits | None = None, access: Access | None = None
    ) -> None:
        limits = limits or Limits()
        self.engines = {engine.name: engine for engine in engines}
        self.metrics = Metrics()
        self.admission = Admission(limits, access or Access())
        self.metrics.answering.set_function(lambda: self.admission.num_answering)
        self.scheduler = Scheduler(limits, self.metrics)
        self.service = ScoringService(self.engines, self.scheduler, limits, self.metrics)
        self.problems = ProblemHandler(self.admission, self.metrics)
        self._is_running = False
        self.app = Starlette(
            routes=self._routes(limits),
            lifespan=self._lifespan,
            exception_handlers={HTTPException: router_problem},
        )
        # A redirect to a path without its last slash repeats the Host header before access is checked.
        self.app.router.redirect_slashes = False

    @property
    def is_ready(self) -> bool:
        """Whether new requests are answered with rewards."""
        return self._is_running and not self.admission.is_draining

    def _routes(self, limits: Limits) -> list[Route]:
        served = apis()
        information = Information(
            self.engines, self.metrics, limits, openapi_document(served), lambda: self.is_ready
        )
        endpoints = [
            (api, ScoringEndpoint(api, self.service, self.admission, self.problems, self.metrics))
            for api in served
        ]
        return information.routes(self._guarded) + [
            Route(path, endpoint.respond, methods=["POST"])
            for api, endpoint in endpoints
            for path in api.paths
        ]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that checks keys first."""

        async def guarded(request: Request) -> Response:
            self.admission.access.check(request.headers)
            return await endpoint(request)

        return self.problems.handling(guarded)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(self.scheduler.run())
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            self.scheduler.close()
            self.service.close()
