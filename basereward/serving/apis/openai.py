"""What the answers of vLLM, SGLang and OpenAI have in common."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Literal

import msgspec

from basereward.comparison import Message
from basereward.serving.apis.base import Answer
from basereward.serving.apis.chat import ContentPart, content_of, text_of
from basereward.serving.request_reader import Reader, message

Texts = str | list[str | int | list[int]]
"""Rendered conversations; token ids are told apart, to be refused with a code of their own."""


class Usage(msgspec.Struct):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Content(msgspec.Struct):
    """A query or a document of several pieces."""

    content: list[ContentPart]


Side = str | Content
"""A query or a document."""


def usage_of(answer: Answer) -> Usage:
    """Return the tokens of a request."""
    return Usage(answer.num_tokens, answer.num_tokens)


def as_list(value: Side | list[Side]) -> list[Side]:
    """Return a list of one or several."""
    return value if isinstance(value, list) else [value]


def query_of(side: Side, reader: Reader) -> list[Message]:
    """Return a query as the only message of a prompt.

    Raises:
        Problem: When it can't be read.
    """
    content = side if isinstance(side, str) else side.content
    return [message("user", *content_of(content, reader))]


def document_of(side: Side) -> str:
    """Return a document as a response.

    Raises:
        Problem: When it has an image.
    """
    return side if isinstance(side, str) else text_of(side.content)


def vector(values: Sequence[float], form: Literal["float", "base64"]) -> list[float] | str:
    """Return numbers as JSON has them, or as base64 of little-endian float32."""
    if form == "float":
        return list(values)
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
