"""Questions to a server of OpenAI's chat API: texts with images in, a text out."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from basereward.integrations.reward_source import response_body
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.message import Message

NUM_FRAMES = 8
"""Frames that are shown of a video."""

AGREE = """An analysis compares two responses, Response 1 and Response 2, and a verdict names the better one.

[Analysis]
{reasoning}

[Verdict]
Response {verdict} is better.

Does the analysis come to this verdict? Answer with one number alone: 1 if it does, -1 if it prefers the \
other response, 0 if it prefers neither."""


@dataclass(frozen=True)
class ChatServer:
    """A model behind an address.

    Args:
        address: Up to `/v1`.
        model: Its name there.
        key_variable: The environment variable that holds the key; one that isn't set sends none.
        temperature: Of its answers.
        max_tokens: The longest answer.
    """

    address: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    max_tokens: int = 2048

    def ask(self, messages: Sequence[Message]) -> str:
        """Return the answer to a conversation.

        Raises:
            ConfigError: When the server refuses it or can't be reached.
            DataError: When an image can't be read.
        """
        body = {
            "model": self.model,
            "messages": [{"role": each.role, "content": _content(each)} for each in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.address.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        answer = json.loads(response_body(request, timeout_seconds=600.0, num_tries=10))
        return str(answer["choices"][0]["message"]["content"] or "")


def consistency(server: ChatServer) -> Callable[[str, int], float]:
    """Return what rates, for `r1_reward`, whether a reasoning agrees with the verdict after it: 1, 0 or -1.

    An answer that is none of these is 0.
    """

    def rate(reasoning: str, verdict: int) -> float:
        text = AGREE.format(reasoning=reasoning, verdict=verdict)
        answer = server.ask([Message("user", (text,))]).strip().rstrip(".")
        return float(answer) if answer in ("1", "-1", "0") else 0.0

    return rate


def _content(message: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
            continue
        images = [part] if isinstance(part, Image) else _frames(part)
        parts += [{"type": "image_url", "image_url": {"url": _url(image)}} for image in images]
    return parts


def _frames(video: Video) -> Sequence[Image]:
    return video.sampled(NUM_FRAMES).frames


def _url(image: Image) -> str:
    encoded = image.encoded()
    kind = "png" if encoded.startswith(b"\x89PNG") else "webp" if encoded[8:12] == b"WEBP" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
