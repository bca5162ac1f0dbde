"""The base class of HTTP APIs: paths, types of bodies, and conversion to and from rewards."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from basereward.comparison import Comparison
from basereward.serving.engine import Engine, Rewards
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


@dataclass(frozen=True)
class Scored:
    """An item's rewards, and the tokens that were read for it."""

    comparison: Comparison
    rewards: Rewards
    num_tokens: int


@dataclass(frozen=True)
class ScoringResponse:
    """The results of a scoring request, whatever the API.

    Args:
        engine: The engine that gave the rewards.
        results: Rewards or a problem for each item.
        id: Identifier of the response.
        created: Unix time in seconds.
        seconds: Duration of reading and of scoring.
        query: Query parameters of the URL.
    """

    engine: Engine
    results: list[Scored | Problem]
    id: str
    created: int
    seconds: dict[str, float]
    query: Mapping[str, str]

    @property
    def scored(self) -> list[Scored]:
        """The items with rewards: all of them, unless the request keeps going after a problem."""
        return [result for result in self.results if isinstance(result, Scored)]

    @property
    def rewards(self) -> list[float]:
        """The rewards of all responses in their order."""
        return [value for result in self.scored for value in result.rewards.values]

    @property
    def num_tokens(self) -> int:
        """Tokens of all items."""
        return sum(result.num_tokens for result in self.scored)


class ErrorBody(msgspec.Struct):
    """A problem in the form that clients of OpenAI and vLLM read."""

    code: str
    message: str
    type: str
    param: str | None


class ErrorResponse(msgspec.Struct):
    """The body of a response without rewards."""

    error: ErrorBody


class Api(abc.ABC):
    """One HTTP API. Bodies are decoded into `request_type`, which checks them, before `parse` sees them.

    Attributes:
        paths: Its paths; the first names it in the ids of responses.
        summary: One line for the OpenAPI document.
        request_type: The type of request bodies.
        response_types: The possible types of response bodies.
        error_type: The type of error bodies.
    """

    paths: ClassVar[tuple[str, ...]]
    summary: ClassVar[str]
    request_type: ClassVar[type[msgspec.Struct]]
    response_types: ClassVar[tuple[Any, ...]]
    error_type: ClassVar[type[msgspec.Struct]] = ErrorResponse

    @abc.abstractmethod
    def parse(self, body: Any, parser: RequestParser) -> ScoringRequest:
        """Return the scoring request of a decoded body.

        Raises:
            Problem: When the body is ambiguous, incomplete or has a forbidden argument.
        """

    @abc.abstractmethod
    def write(self, body: Any, response: ScoringResponse) -> Any:
        """Return the response body, of one of `response_types`, to a request body."""

    def write_error(self, problem: Problem) -> msgspec.Struct:
        """Return the error body, of type `error_type`."""
        return error_response(problem)


def error_of(problem: Problem) -> ErrorBody:
    """Return a problem as clients of OpenAI read it."""
    kind = "invalid_request_error" if problem.status < 429 else "server_error"
    return ErrorBody(problem.code, problem.message, kind, problem.param)


def error_response(problem: Problem) -> ErrorResponse:
    """Return the body of a response that has a problem instead of rewards."""
    return ErrorResponse(error_of(problem))


def activated(value: float, *, is_asked: bool) -> float:
    """Return the sigmoid of a reward where it is asked for, else the reward."""
    if not is_asked:
        return value
    # Two forms, neither of which overflows.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def refuse_given(**arguments: object) -> None:
    """Refuse arguments that would change how the model reads a request.

    Args:
        arguments: By name; None and False count as absent.

    Raises:
        Problem: Naming the first one present.
    """
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise Problem("argument_not_allowed", name)
