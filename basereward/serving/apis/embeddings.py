"""`POST /v1/embeddings`: SGLang's (0.5.23) for reward models, whose embedding is the reward.

It is not normalized to length 1, which would leave of every reward its sign.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect, refuse_given
from basereward.serving.apis.classify import conversations, refuse_video
from basereward.serving.apis.openai import Usage, usage_of, vector
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Call, Reader


class MultimodalInput(msgspec.Struct):
    """A rendered conversation and its image, as base64 or a `data:` URL."""

    text: str
    image: str | None = None
    video: Any = None


class EmbeddingsRequest(msgspec.Struct):
    """Rendered conversations; token ids are refused."""

    input: str | list[str | int | list[int] | MultimodalInput]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class EmbeddingItem(msgspec.Struct):
    """The reward of a conversation, as an embedding of one number."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingsResponse(msgspec.Struct):
    """The answer, as OpenAI's clients read it."""

    data: list[EmbeddingItem]
    model: str
    usage: Usage
    object: str = "list"


class Embeddings(Dialect):
    """`POST /v1/embeddings`."""

    paths = ("/v1/embeddings",)
    summary = "SGLang: rewards of whole conversations, as embeddings"
    request = EmbeddingsRequest
    responses = (EmbeddingsResponse,)

    def read(self, body: EmbeddingsRequest, reader: Reader) -> Call:
        """Read rendered conversations."""
        refuse_given(dimensions=body.dimensions)
        several = [own for own in body.input if isinstance(own, MultimodalInput)]
        if not several:
            plain: Any = body.input
            return Call(conversations(plain, reader), body.model)
        if len(several) != len(body.input):
            raise Problem("body_not_valid", "input")
        for own in several:
            refuse_video(own.video)
        items = reader.each(
            several,
            lambda own: reader.of_turns(
                rendered_chat.conversation(own.text), [own.image] if own.image else []
            ),
            "input",
        )
        return Call(items, body.model)

    def write(self, body: EmbeddingsRequest, answer: Answer) -> EmbeddingsResponse:
        """Write each reward as an embedding."""
        data = [
            EmbeddingItem(index, vector([own], body.encoding_format))
            for index, own in enumerate(answer.rewards)
        ]
        return EmbeddingsResponse(data, answer.engine.name, usage_of(answer))
