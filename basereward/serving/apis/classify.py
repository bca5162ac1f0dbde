"""`POST /classify`: vLLM's (0.33), which verl's reward loop reads too, and SGLang's native one (0.5.23).

A body with `input` or `messages` is vLLM's, one with `text` or `input_ids` SGLang's. Rewards are unbounded,
as vLLM's are for a model whose `problem_type` is `regression`; `use_activation` has no effect in either.
"""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse
from basereward.serving.apis.chat import ChatMessage, Texts, Usage, last_turn, prompt_of, usage_of
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class PoolingFields(RefusedFields, kw_only=True):
    """Fields of vLLM's requests; those that would change how messages are read are refused."""

    model: str | None = None
    input: Texts | None = None
    messages: list[ChatMessage] | None = None
    tools: list[dict[str, Any]] | None = None


class ClassifyRequest(PoolingFields, kw_only=True):
    """A request with `input` (rendered conversations), `messages` (one conversation) or SGLang's `text`."""

    text: str | list[str] | None = None
    input_ids: Any = None
    image_data: str | list[str | list[str]] | None = None
    video_data: Any = None


class Label(msgspec.Struct):
    """The reward of a conversation, as the only one of `probs`."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassifyResponse(msgspec.Struct):
    """vLLM's response."""

    id: str
    created: int
    model: str
    data: list[Label]
    usage: Usage
    object: str = "list"


class MetaInfo(msgspec.Struct):
    """SGLang's metadata of an embedding."""

    id: str
    prompt_tokens: int


class Embedding(msgspec.Struct):
    """SGLang's response, or one of a batch: the reward as an embedding of one number."""

    embedding: list[float]
    meta_info: MetaInfo


class Classify(Api):
    """`POST /classify`."""

    paths = ("/classify",)
    summary = "vLLM and SGLang: rewards of whole conversations"
    request_type = ClassifyRequest
    response_types = (ClassifyResponse, Embedding, list[Embedding])

    def parse(self, body: ClassifyRequest, parser: RequestParser) -> ScoringRequest:
        """Parse one conversation of messages, or rendered ones."""
        if body.text is None and body.input_ids is None:
            if body.image_data is not None or body.video_data is not None:
                raise Problem("body_not_valid", "image_data")
            return ScoringRequest(pooled(body, parser), body.model)
        if body.input_ids is not None:
            raise Problem("token_ids_not_allowed", "input_ids")
        refuse_video(body.video_data)
        if body.input is not None or body.messages is not None or body.tools:
            raise Problem("body_not_valid", "text")
        assert body.text is not None
        texts = [body.text] if isinstance(body.text, str) else body.text
        images = _images_of_each(body.image_data, len(texts), is_batch=isinstance(body.text, list))
        rows = list(zip(texts, images, strict=True))
        items = parser.each(rows, lambda row: parser.conversation(*row), "text")
        return ScoringRequest(items)

    def write(self, body: ClassifyRequest, response: ScoringResponse) -> Any:
        """Write a reward as the probability of the only class, or as an embedding."""
        if body.text is None:
            data = [Label(index, "LABEL_0", [reward], 1) for index, reward in enumerate(response.rewards)]
            return ClassifyResponse(
                response.id, response.created, response.engine.name, data, usage_of(response)
            )
        embeddings = [
            Embedding(item.rewards.values, MetaInfo(f"{response.id}-{index}", item.num_tokens))
            for index, item in enumerate(response.scored)
        ]
        return embeddings[0] if isinstance(body.text, str) else embeddings


def pooled(body: PoolingFields, parser: RequestParser) -> list[Comparison | Problem]:
    """Return the conversations of a request to vLLM's `/classify` or `/pooling`.

    Raises:
        Problem: When there is none, or an argument is not allowed.
    """
    if (body.input is None) == (body.messages is None):
        raise Problem("body_not_valid")
    if body.messages is not None:
        return parser.each(
            [body.messages], lambda messages: _conversation(messages, parser, body.tools), "messages"
        )
    if body.tools:
        raise Problem("argument_not_allowed", "tools")
    return conversations(body.input or [], parser)


def conversations(texts: Texts, parser: RequestParser) -> list[Comparison | Problem]:
    """Return the comparisons of rendered conversations.

    Raises:
        Problem: When one is given as token ids.
    """
    if not isinstance(texts, str) and any(not isinstance(text, str) for text in texts):
        raise Problem("token_ids_not_allowed", "input")
    several = [texts] if isinstance(texts, str) else [str(text) for text in texts]
    return parser.each(several, parser.conversation, "input")


def refuse_video(video: object) -> None:
    """Refuse a video.

    Raises:
        Problem: When there is one.
    """
    if video is not None:
        raise Problem("video_not_allowed")


def _conversation(
    messages: list[ChatMessage], parser: RequestParser, tools: list[dict[str, Any]] | None
) -> Comparison:
    prompt, response = last_turn(messages)
    return parser.comparison(prompt_of(prompt, parser, tools), [response])


def _images_of_each(
    images: str | list[str | list[str]] | None, count: int, *, is_batch: bool
) -> list[list[str]]:
    """Return the images of each text; a single text may come with one image or a list."""
    if images is None:
        return [[]] * count
    each: list[Any] = list(images) if is_batch else [images]
    lists = [[entry] if isinstance(entry, str) else entry for entry in each]
    if len(lists) != count or any(not isinstance(image, str) for entry in lists for image in entry):
        raise Problem("body_not_valid", "image_data")
    return lists
