"""The HTTP endpoint of an API: admission, the body, deadline and disconnect, the response."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from basereward.serving.admission import UNANSWERED, Admission
from basereward.serving.apis.base import Api, ScoringResponse
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem
from basereward.serving.responses import JSON, ProblemHandler, json_response
from basereward.serving.service import ScoringService

Result = TypeVar("Result")


class ScoringEndpoint:
    """Answers the requests of one API with rewards."""

    def __init__(
        self,
        api: Api,
        service: ScoringService,
        admission: Admission,
        problems: ProblemHandler,
        metrics: Metrics,
    ) -> None:
        self.api = api
        self.service = service
        self.admission = admission
        self.metrics = metrics
        self._id_prefix = api.paths[0].strip("/").replace("/", "-")
        self._respond = problems.handling(self._score, api.write_error)

    async def respond(self, request: Request) -> Response:
        """Return the response to a request, and count it."""
        started = time.perf_counter()
        status = UNANSWERED
        with self.admission.counting():
            try:
                response = await self._respond(request)
                status = response.status_code
                return response
            finally:
                self.admission.ended[status] += 1
                self.metrics.requests.labels(request.scope["route"].path, str(status)).inc()
                self.metrics.answer_seconds.observe(time.perf_counter() - started)

    async def _score(self, request: Request) -> Response:
        """Read a request, have it scored, and write the response.

        Raises:
            Problem: When it has no rewards.
            ClientDisconnect: When the client has left.
        """
        started = time.perf_counter()
        self.admission.admit(request.headers)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Problem("content_type_not_json")
        deadline = started + self.service.limits.seconds
        with self.admission.holding_bytes() as hold:
            body = await self._body(request, hold, deadline)
            gone = asyncio.create_task(_disconnect(request))
            try:
                with self.service.work() as work:
                    parsed = await _unless(gone, deadline, self.service.parse(self.api, body, work))
                    read = time.perf_counter()
                    results = await _unless(gone, deadline, self.service.score(parsed))
            finally:
                gone.cancel()
            response = ScoringResponse(
                parsed.engine,
                results,
                f"{self._id_prefix}-{uuid.uuid4().hex}",
                int(time.time()),
                {"read": read - started, "score": time.perf_counter() - read},
                request.query_params,
            )
            return json_response(self.api.write(parsed.body, response), headers=self.admission.headers)

    async def _body(self, request: Request, hold: Callable[[int], None], deadline: float) -> bytes:
        """Return the body, of which no more is read than is allowed.

        Raises:
            Problem: When it is too large or too slow, or the bodies in flight are too large together.
        """
        max_bytes = self.service.limits.body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise Problem("body_too_large")
        pieces = []
        size = 0
        try:
            async with asyncio.timeout(deadline - time.perf_counter()) as timeout:
                with self.admission.reading(timeout):
                    async for piece in request.stream():
                        size += len(piece)
                        if size > max_bytes:
                            raise Problem("body_too_large")
                        hold(len(piece))
                        pieces.append(piece)
        except TimeoutError:
            raise Problem("draining" if self.admission.is_draining else "body_too_slow") from None
        return b"".join(pieces)


async def _unless(gone: asyncio.Task[None], deadline: float, result: asyncio.Future[Result]) -> Result:
    """Return a result, unless the client leaves or the deadline passes first; the result is then cancelled.

    Raises:
        Problem: When the deadline has passed.
        ClientDisconnect: When the client has left.
    """
    waited: list[asyncio.Future[Any]] = [result, gone]
    try:
        await asyncio.wait(
            waited, timeout=deadline - time.perf_counter(), return_when=asyncio.FIRST_COMPLETED
        )
        if result.done():
            return result.result()
    finally:
        result.cancel()
    if gone.done():
        raise ClientDisconnect
    raise Problem("deadline_passed")


async def _disconnect(request: Request) -> None:
    """Return when the client has left; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
