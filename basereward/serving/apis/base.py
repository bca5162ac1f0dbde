"""What an API is: paths, the shapes of what comes and goes, and how one becomes the other."""

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
from basereward.serving.request_reader import Call, Reader


@dataclass(frozen=True)
class Scored:
    """An item's rewards, and the tokens that it took."""

    comparison: Comparison
    rewards: Rewards
    num_tokens: int


@dataclass(frozen=True)
class Answer:
    """What became of a call.

    Args:
        engine: Whose rewards these are.
        results: Of each item.
        id: Names the answer.
        created: When, in seconds since 1970.
        seconds: How long reading and scoring took.
        query: What the URL says behind its question mark.
    """

    engine: Engine
    results: list[Scored | Problem]
    id: str
    created: int
    seconds: dict[str, float]
    query: Mapping[str, str]

    @property
    def scored(self) -> list[Scored]:
        """The items of a call that fails as a whole where one does, so that all have rewards."""
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
    """What is wrong; the form that OpenAI's and vLLM's clients know."""

    code: str
    message: str
    type: str
    param: str | None


class ErrorResponse(msgspec.Struct):
    """The body of an answer that holds no rewards."""

    error: ErrorBody


class Dialect(abc.ABC):
    """One API. Requests are decoded into `request` before `read` sees them, so types are checked.

    Attributes:
        paths: Where it is.
        summary: What it is, in a line.
        request: The type of a request's body.
        responses: The types that a response's body may have.
        failure: The type of a body that says what is wrong.
    """

    paths: ClassVar[tuple[str, ...]]
    summary: ClassVar[str]
    request: ClassVar[Any]
    responses: ClassVar[tuple[Any, ...]]
    failure: ClassVar[Any] = ErrorResponse

    @abc.abstractmethod
    def read(self, body: Any, reader: Reader) -> Call:
        """Return what a request asks.

        Raises:
            Problem: When that can't be told.
        """

    @abc.abstractmethod
    def write(self, body: Any, answer: Answer) -> Any:
        """Return the body of the response, of one of `responses`' types."""

    def problem(self, problem: Problem) -> Any:
        """Return the body of a response that says what is wrong, of type `failure`."""
        return refusal(problem)


def body_of(problem: Problem) -> ErrorBody:
    """Return what is wrong."""
    kind = "invalid_request_error" if problem.status < 429 else "server_error"
    return ErrorBody(problem.code, problem.message, kind, problem.param)


def refusal(problem: Problem) -> ErrorResponse:
    """Return the body of a response that says what is wrong."""
    return ErrorResponse(body_of(problem))


def activated(value: float, *, is_asked: bool) -> float:
    """Return a reward, or its sigmoid where that is asked for."""
    if not is_asked:
        return value
    # Without overflow on either side.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def refuse_given(**arguments: object) -> None:
    """Refuse what would change how the model reads a request.

    Args:
        arguments: By name; those that are None or False weren't given.

    Raises:
        Problem: Naming the first that was given.
    """
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise Problem("argument_not_allowed", name)
