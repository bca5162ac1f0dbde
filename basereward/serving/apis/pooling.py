"""`POST /pooling`: vLLM's (0.33)."""

from __future__ import annotations

from typing import Literal

import msgspec

from basereward.serving.apis.base import Api, ScoringResponse
from basereward.serving.apis.chat import Usage, usage_of, vector
from basereward.serving.apis.classify import PoolingFields, pooled
from basereward.serving.request_parser import RequestParser, ScoringRequest


class PoolingRequest(PoolingFields, kw_only=True):
    """A request like those of `/classify`."""

    encoding_format: Literal["float", "base64"] = "float"


class Pooled(msgspec.Struct):
    """The reward of a conversation, as a vector of one number."""

    index: int
    data: list[float] | str
    object: str = "pooling"


class PoolingResponse(msgspec.Struct):
    """vLLM's response."""

    id: str
    created: int
    model: str
    data: list[Pooled]
    usage: Usage
    object: str = "list"


class Pooling(Api):
    """`POST /pooling`."""

    paths = ("/pooling",)
    summary = "vLLM: rewards of whole conversations, as vectors"
    request_type = PoolingRequest
    response_types = (PoolingResponse,)

    def parse(self, body: PoolingRequest, parser: RequestParser) -> ScoringRequest:
        """Parse one conversation of messages, or rendered ones."""
        return ScoringRequest(pooled(body, parser), body.model)

    def write(self, body: PoolingRequest, response: ScoringResponse) -> PoolingResponse:
        """Write each reward as a vector."""
        data = [
            Pooled(index, vector([reward], body.encoding_format))
            for index, reward in enumerate(response.rewards)
        ]
        return PoolingResponse(response.id, response.created, response.engine.name, data, usage_of(response))
