"""`POST /v1/embeddings`: SGLang's (0.5.23) for reward models, whose embedding is the reward.

It is not normalized: at length 1 nothing but the sign of a reward would be left.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from basereward.serving.apis.base import Api, RefusedFields, RequestFields, ScoringResponse
from basereward.serving.apis.chat import Usage, usage_of, vector
from basereward.serving.apis.classify import conversations, refuse_video
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class MultimodalInput(RequestFields):
    """A rendered conversation and its image, as base64 or a `data:` URL."""

    text: str
    image: str | None = None
    video: Any = None


class EmbeddingsRequest(RefusedFields, kw_only=True):
    """Rendered conversations; token ids are refused."""

    input: str | list[str | int | list[int] | MultimodalInput]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"


class EmbeddingItem(msgspec.Struct):
    """The reward of a conversation, as an embedding of one number."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingsResponse(msgspec.Struct):
    """The response, as OpenAI's clients read it."""

    data: list[EmbeddingItem]
    model: str
    usage: Usage
    object: str = "list"


class Embeddings(Api):
    """`POST /v1/embeddings`."""

    paths = ("/v1/embeddings",)
    summary = "SGLang: rewards of whole conversations, as embeddings"
    request_type = EmbeddingsRequest
    response_types = (EmbeddingsResponse,)

    def parse(self, body: EmbeddingsRequest, parser: RequestParser) -> ScoringRequest:
        """Parse rendered conversations."""
        inputs = [entry for entry in body.input if isinstance(entry, MultimodalInput)]
        if not inputs:
            texts: Any = body.input
            return ScoringRequest(conversations(texts, parser), body.model)
        if len(inputs) != len(body.input):
            raise Problem("body_not_valid", "input")
        for entry in inputs:
            refuse_video(entry.video)
        items = parser.each(
            inputs,
            lambda entry: parser.conversation(entry.text, [entry.image] if entry.image else []),
            "input",
        )
        return ScoringRequest(items, body.model)

    def write(self, body: EmbeddingsRequest, response: ScoringResponse) -> EmbeddingsResponse:
        """Write each reward as an embedding."""
        data = [
            EmbeddingItem(index, vector([reward], body.encoding_format))
            for index, reward in enumerate(response.rewards)
        ]
        return EmbeddingsResponse(data, response.engine.name, usage_of(response))
