"""Messages, queries, documents and usage as OpenAI's API and its followers (vLLM, SGLang) write them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from basereward.message import Message, Part, with_tools
from basereward.serving.apis.base import RequestFields, ScoringResponse
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, message

Texts = str | list[str | int | list[int]]
"""Rendered conversations; token ids are decoded too, to be refused with a code of their own."""


class Address(RequestFields):
    """The URL of an image; only `data:` URLs are read, and `detail` is ignored."""

    url: str
    detail: str | None = None


class ContentPart(RequestFields):
    """A piece of a message: a text, or an image as base64 or a `data:` URL; `cache_control` is ignored."""

    type: Literal["text", "image", "image_url", "video", "video_url"]
    text: str | None = None
    image: str | None = None
    image_url: Address | str | None = None
    video: Any = None
    video_url: Any = None
    uuid: Any = None
    cache_control: Any = None


class ChatMessage(RequestFields):
    """One turn of a conversation; all but role and content is for the chat template, as in transformers."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None


class Content(RequestFields):
    """A query or a document of several pieces."""

    content: list[ContentPart]


Side = str | Content
"""A query or a document."""


class Usage(msgspec.Struct):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


def content_of(content: str | Sequence[ContentPart], parser: RequestParser) -> list[Part]:
    """Return texts and images in their order.

    Raises:
        Problem: When a piece is missing or not allowed.
    """
    if isinstance(content, str):
        return [content]
    return [_part(part, parser) for part in content]


def prompt_of(
    messages: str | Sequence[ChatMessage],
    parser: RequestParser,
    tools: Sequence[dict[str, Any]] | None = None,
) -> list[Message]:
    """Return the messages of a prompt; a text is a user's message.

    Args:
        messages: The text or the messages.
        parser: Reads the images.
        tools: What may be called in the conversation, for the chat template.

    Raises:
        Problem: When one can't be read.
    """
    if isinstance(messages, str):
        prompt = [message("user", messages)]
    else:
        prompt = [_message(turn, parser) for turn in messages]
    return with_tools(prompt, tools) if prompt else prompt


def _message(turn: ChatMessage, parser: RequestParser) -> Message:
    given: dict[str, Any] = {name: value for name in GIVEN if (value := getattr(turn, name))}
    if turn.content is None:
        if turn.tool_calls is None:
            raise Problem("body_not_valid", "content")
        return message(turn.role, given={**given, "content": None})
    return message(turn.role, *content_of(turn.content, parser), given=given)


GIVEN = ("tool_calls", "tool_call_id", "name", "reasoning_content")
"""The fields of a message that its chat template is given besides role and content."""


def text_of(content: str | Sequence[ContentPart]) -> str:
    """Return the text of a response.

    Raises:
        Problem: When it has an image.
    """
    if isinstance(content, str):
        return content
    if any(part.type != "text" for part in content):
        raise Problem("response_with_image")
    for part in content:
        _check_part(part)
    return "".join(part.text or "" for part in content)


def text_of_parts(content: Sequence[Part]) -> str:
    """Return the text of a message as that of a response.

    Raises:
        Problem: When it has an image.
    """
    if not all(isinstance(part, str) for part in content):
        raise Problem("response_with_image")
    return "".join(map(str, content))


def last_turn(messages: Sequence[ChatMessage]) -> tuple[Sequence[ChatMessage], str]:
    """Return the messages before the assistant's last turn, and the text of that turn.

    Raises:
        Problem: When the last turn isn't the assistant's.
    """
    if not messages or messages[-1].role != "assistant":
        raise Problem("response_missing", "messages")
    last = messages[-1]
    for name in GIVEN:
        if getattr(last, name):
            raise Problem("response_not_text", f"messages[{len(messages) - 1}].{name}")
    return messages[:-1], text_of(last.content or "")


def as_list(value: Side | list[Side]) -> list[Side]:
    """Return a list of one or several."""
    return value if isinstance(value, list) else [value]


def query_of(side: Side, parser: RequestParser) -> list[Message]:
    """Return a query as the only message of a prompt.

    Raises:
        Problem: When it can't be read.
    """
    content = side if isinstance(side, str) else side.content
    return [message("user", *content_of(content, parser))]


def document_of(side: Side) -> str:
    """Return a document as a response.

    Raises:
        Problem: When it has an image.
    """
    return side if isinstance(side, str) else text_of(side.content)


def usage_of(response: ScoringResponse) -> Usage:
    """Return the tokens of a request."""
    return Usage(response.num_tokens, response.num_tokens)


def vector(values: Sequence[float], encoding: Literal["float", "base64"]) -> list[float] | str:
    """Return numbers as they are, or as base64 of little-endian float32."""
    if encoding == "float":
        return list(values)
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _check_part(part: ContentPart) -> None:
    """Refuse a piece that has a value of another type, which would be left out."""
    for name in ("text", "image", "image_url", "video", "video_url"):
        if name != part.type and getattr(part, name) is not None:
            raise Problem("body_not_valid", name)


def _part(part: ContentPart, parser: RequestParser) -> Part:
    if part.type not in ("video", "video_url"):
        _check_part(part)
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "image" and part.image is not None:
        return parser.image(part.image)
    if part.type == "image_url" and part.image_url is not None:
        address = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return parser.image(address)
    if part.type in ("video", "video_url"):
        raise Problem("video_not_allowed")
    raise Problem("image_placeholder_without_image" if part.type != "text" else "body_not_valid")
