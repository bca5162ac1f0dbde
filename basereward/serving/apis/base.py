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


UNREAD_FIELDS = (
    "add_generation_prompt",
    "add_special_tokens",
    "annotations",
    "audio",
    "audio_data",
    "audios",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "function_call",
    "functions",
    "image",
    "images",
    "image_data",
    "input_audio",
    "instruct",
    "instruction",
    "margin",
    "max_pixels",
    "max_tokens",
    "media_io_kwargs",
    "messages",
    "min_pixels",
    "mm_processor_kwargs",
    "multi_modal_data",
    "normalize",
    "prefix",
    "query",
    "reasoning",
    "response_format",
    "system",
    "task",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "video",
    "videos",
    "weight",
)
"""Names of fields that an error repeats where a body has one that isn't read. Any other is the client's text,
of which no error repeats anything."""


class RequestFields(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of request bodies: a field that no subclass has is refused by name."""


class ClientFields(RequestFields, kw_only=True):
    """Fields of clients that decide nothing about a reward, and are ignored.

    They name the request or its place in a queue; ask for a cut of long texts, which are refused instead; ask
    for vLLM's activation, which the configs of reward models turn off; ask for documents in the response; or
    are labels for rules, beside which the model's reward stands.
    """

    user: Any = None
    request_id: Any = None
    rid: Any = None
    priority: Any = None
    cache_salt: Any = None
    truncate: Any = None
    truncation_direction: Any = None
    truncation_side: Any = None
    truncate_prompt_tokens: Any = None
    max_length: Any = None
    max_tokens_per_query: Any = None
    max_tokens_per_doc: Any = None
    use_activation: Any = None
    activation: Any = None
    return_documents: Any = None
    label: Any = None
    labels: Any = None


class RefusedFields(ClientFields, kw_only=True):
    """Fields of clients that would change how the model reads a request; one with a value is refused."""

    chat_template: Any = None
    chat_template_kwargs: Any = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    add_generation_prompt: Any = None
    continue_final_message: Any = None
    add_special_tokens: Any = None
    instruction: Any = None
    dimensions: Any = None
    normalize: Any = None


REFUSED_FIELDS = tuple(
    name for name in RefusedFields.__struct_fields__ if name not in ClientFields.__struct_fields__
)


class Api(abc.ABC):
    """One HTTP API. Bodies are decoded into `request_type`, which checks them, before `parse` sees them.

    Attributes:
        paths: Its paths; the first names it in the ids of responses.
        summary: One line for the OpenAPI document.
        request_type: The type of request bodies.
        response_types: The possible types of response bodies.
        error_type: The type of error bodies.
        keeps_nulls: Fields in whose values a null is a value; elsewhere a field that is null is absent.
    """

    paths: ClassVar[tuple[str, ...]]
    summary: ClassVar[str]
    request_type: ClassVar[type[msgspec.Struct]]
    response_types: ClassVar[tuple[Any, ...]]
    error_type: ClassVar[type[msgspec.Struct]] = ErrorResponse
    keeps_nulls: ClassVar[frozenset[str]] = frozenset()

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


def refuse_given(body: msgspec.Struct) -> None:
    """Refuse a body with a field of `RefusedFields`.

    Args:
        body: The body; None and False in a field count as absent.

    Raises:
        Problem: Naming the first one present.
    """
    for name in REFUSED_FIELDS if isinstance(body, RefusedFields) else ():
        if getattr(body, name) not in (None, False):
            raise Problem("argument_not_allowed", name)
