"""Messages with images inline, as OpenAI's API and its many followers write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from basereward.comparison import Message, Part
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Reader, message


class Address(msgspec.Struct):
    """Where an image is; only `data:` URLs are read."""

    url: str
    detail: str | None = None


class ContentPart(msgspec.Struct):
    """A piece of a message: a text, or an image as base64 or a `data:` URL."""

    type: Literal["text", "image", "image_url", "video", "video_url"]
    text: str | None = None
    image: str | None = None
    image_url: Address | str | None = None


class ChatMessage(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[ContentPart]


def content_of(content: str | Sequence[ContentPart], reader: Reader) -> list[Part]:
    """Return texts and images in their order.

    Raises:
        Problem: When a piece is missing or not allowed.
    """
    if isinstance(content, str):
        return [content]
    return [_part(part, reader) for part in content]


def prompt_of(messages: str | Sequence[ChatMessage], reader: Reader) -> list[Message]:
    """Return the messages of a prompt; a text is one of a user.

    Raises:
        Problem: When one can't be read.
    """
    if isinstance(messages, str):
        return [message("user", messages)]
    return [message(own.role, *content_of(own.content, reader)) for own in messages]


def text_of(content: str | Sequence[ContentPart]) -> str:
    """Return the text of a response.

    Raises:
        Problem: When it has an image.
    """
    if isinstance(content, str):
        return content
    if any(part.type != "text" for part in content):
        raise Problem("response_with_image")
    return "".join(part.text or "" for part in content)


def last_turn(messages: Sequence[ChatMessage]) -> tuple[Sequence[ChatMessage], str]:
    """Return what comes before the assistant's last turn, and the text of that.

    Raises:
        Problem: When the last turn isn't the assistant's.
    """
    if not messages or messages[-1].role != "assistant":
        raise Problem("response_missing", "messages")
    return messages[:-1], text_of(messages[-1].content)


def _part(part: ContentPart, reader: Reader) -> Part:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "image" and part.image is not None:
        return reader.image(part.image)
    if part.type == "image_url" and part.image_url is not None:
        address = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return reader.image(address)
    if part.type in ("video", "video_url"):
        raise Problem("video_not_allowed")
    raise Problem("image_placeholder_without_image" if part.type != "text" else "body_not_valid")
