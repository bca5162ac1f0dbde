"""HTTP responses: JSON bodies, and problems in the form of an API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from basereward.serving.admission import CLIENT_LEFT, Admission
from basereward.serving.apis.base import error_response
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem, log_failure

JSON = "application/json"

Endpoint = Callable[[Request], Awaitable[Response]]


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a body in JSON."""
    return Response(msgspec.json.encode(body), status, headers, JSON)


class ProblemHandler:
    """Turns exceptions of endpoints into responses.

    Args:
        admission: Tells whether the server drains, so that connections are to be closed.
        metrics: Counts problems by code.
    """

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self.admission = admission
        self.metrics = metrics

    def handling(
        self, endpoint: Endpoint, write_error: Callable[[Problem], msgspec.Struct] = error_response
    ) -> Endpoint:
        """Return an endpoint that responds by `write_error` where another raises a problem."""

        async def handled(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            except Problem as error:
                problem = error
            except Exception as error:
                # Logged here, since outer layers would log the error's text.
                log_failure(request.scope["route"].path, error)
                problem = Problem("internal_error")
            self.metrics.problems.labels(problem.code).inc()
            headers = problem.headers | self.admission.headers
            return json_response(write_error(problem), problem.status, headers)

        return handled


async def router_problem(request: Request, error: Exception) -> Response:
    """Return the response to a path or a method that isn't there."""
    assert isinstance(error, HTTPException)
    problem = Problem("method_not_allowed" if error.status_code == 405 else "path_not_found")
    return json_response(error_response(problem), problem.status, error.headers)
