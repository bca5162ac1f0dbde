"""`POST /pooling`: vLLM's (0.33)."""

from __future__ import annotations

from typing import Literal

import msgspec

from basereward.serving.apis.base import Answer, Dialect, refuse_given
from basereward.serving.apis.classify import PoolingFields, pooled
from basereward.serving.apis.openai import Usage, usage_of, vector
from basereward.serving.request_reader import Call, Reader


class PoolingRequest(PoolingFields):
    """As that of `/classify`."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Pooled(msgspec.Struct):
    """The reward of a conversation, as a vector of one number."""

    index: int
    data: list[float] | str
    object: str = "pooling"


class PoolingResponse(msgspec.Struct):
    """vLLM's answer."""

    id: str
    created: int
    model: str
    data: list[Pooled]
    usage: Usage
    object: str = "list"


class Pooling(Dialect):
    """`POST /pooling`."""

    paths = ("/pooling",)
    summary = "vLLM: rewards of whole conversations, as vectors"
    request = PoolingRequest
    responses = (PoolingResponse,)

    def read(self, body: PoolingRequest, reader: Reader) -> Call:
        """Read one conversation of messages, or rendered ones."""
        refuse_given(dimensions=body.dimensions)
        return Call(pooled(body, reader), body.model)

    def write(self, body: PoolingRequest, answer: Answer) -> PoolingResponse:
        """Write each reward as a vector."""
        data = [
            Pooled(index, vector([own], body.encoding_format)) for index, own in enumerate(answer.rewards)
        ]
        return PoolingResponse(answer.id, answer.created, answer.engine.name, data, usage_of(answer))
