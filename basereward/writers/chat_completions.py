"""The JSON of chat completions, as OpenAI, vLLM, SGLang, llama.cpp and transformers speak it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from basereward.errors import DataError, shown
from basereward.media.image import Image
from basereward.message import Message
from basereward.writers.request import NOTHING, Completion, Ending, Request

TOP_LOGPROBS = 20
"""The likeliest tokens that a server is asked for; the most that OpenAI allows."""

MEDIA_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
"""The beginnings of the files that every server reads; other images are sent as PNG."""

ENDINGS: dict[str, Ending] = {"stop": "finished", "length": "cut"}

TokenLimitName = Literal["max_tokens", "max_completion_tokens"]


class WrongAnswer(Exception):
    """An answer with status 200 that is no chat completion."""


@dataclass(frozen=True)
class Capabilities:
    """The fields of a request that a server heeds, as a probe has shown.

    Args:
        logprobs: Whether it gives log-probabilities.
        n: Whether it gives several completions of one request.
        seed: Whether it accepts a seed; whether it heeds it can't be seen from one answer.
        images: Whether it reads images; None where none may be sent to find out.
        token_limit: Its name for the longest text.
    """

    logprobs: bool = True
    n: bool = True
    seed: bool = True
    images: bool | None = True
    token_limit: TokenLimitName = "max_tokens"

    def __str__(self) -> str:
        words = {True: "yes", False: "no", None: "not tried"}
        seed = "accepted" if self.seed else "no"
        return f"logprobs {words[self.logprobs]}, n {words[self.n]}, seed {seed}, images {words[self.images]}"


def body_of(
    request: Request, model: str, capabilities: Capabilities, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of a request.

    Raises:
        DataError: When an image can't be read, or a message has something that can't be sent.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": chat_messages(request),
        "temperature": request.temperature,
    }
    max_tokens = request.max_tokens
    if request.temperature and capabilities.seed:
        body["seed"] = request.seed
    if request.choices and capabilities.logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        max_tokens = 1
    body[capabilities.token_limit] = max_tokens
    if request.beginning:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return {**body, **extra}


def chat_messages(request: Request) -> list[dict[str, Any]]:
    """Return the messages of a request, images as `data:` URLs; the last is its beginning, if it has one.

    Raises:
        DataError: When an image can't be read, or a message has something that can't be sent.
    """
    messages = [_message(message) for message in request.messages]
    if request.beginning:
        # vLLM and transformers go on with it where they are told to; others end the turn.
        messages.append({"role": "assistant", "content": request.beginning})
    return messages


def completion_of(answer: Any, request: Request) -> Completion:
    """Return the completion of an answer.

    Raises:
        WrongAnswer: When it is none.
    """
    if not isinstance(answer, Mapping):
        raise WrongAnswer(f"the answer is no JSON object: {shown(answer)}")
    if answer.get("error"):
        return Completion.failed(f"the server says {shown(_error_text(answer))}")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise WrongAnswer(f"the answer has no choices with a message: {shown(dict(answer))}")
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
        raise WrongAnswer(f"the answer's content is no text: {shown(content)}")
    reason = choice.get("finish_reason")
    if reason not in ENDINGS:
        return Completion.failed(f"the server ended the text with finish_reason {shown(reason)}")
    text = content or ""
    if reasoning:  # of a server that takes the thoughts out of the text
        text = f"<think>{reasoning}</think>{text}"
    if request.beginning and not text.startswith(request.beginning):
        text = request.beginning + text
    usage = answer.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Completion(
        text,
        ENDINGS[reason],
        log_probabilities=choice_log_probabilities(_top_tokens(choice.get("logprobs")), request.choices),
        num_prompt_tokens=_count(usage.get("prompt_tokens")),
        num_tokens=_count(usage.get("completion_tokens")),
        model=str(answer.get("model") or ""),
    )


def has_logprobs(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer has log-probabilities, which servers that ignore the field leave out."""
    choice = answer["choices"][0]
    return bool(_top_tokens(choice.get("logprobs")))


def error_message(body: Any) -> str:
    """Return the message of an error's body in the forms that servers give it."""
    return shown(_error_text(body)) if isinstance(body, Mapping) else shown(body)


def data_url(image: Image) -> str:
    """Return an image as a `data:` URL, in a format that every server reads.

    Raises:
        DataError: When it can't be read.
    """
    encoded = image.encoded()
    kind = next((name for start, name in MEDIA_TYPES if encoded.startswith(start)), None)
    if kind is None and encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        buffer = io.BytesIO()
        image.open().save(buffer, "PNG")
        encoded, kind = buffer.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def _message(message: Message) -> dict[str, Any]:
    if message.given:
        raise DataError(f"{message.given_names} of a message can't be sent to a writer", field="prompt")
    if message.videos:
        raise DataError("videos aren't sent; give frames as images", field="videos")
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, Image):
            parts.append({"type": "image_url", "image_url": {"url": data_url(part)}})
        elif part:
            parts.append({"type": "text", "text": part})
    return {"role": message.role, "content": parts}


def choice_log_probabilities(top: Sequence[tuple[str, float]], choices: Sequence[str]) -> Mapping[str, float]:
    """Return the log-probability of each choice as the first token; nothing where none is likely enough.

    A choice that isn't among them is at most as likely as the last of them, and is taken to be that likely.

    Args:
        top: The likeliest first tokens, and their log-probabilities.
        choices: Texts; spaces around a token don't matter.
    """
    probabilities = {
        choice: sum(math.exp(value) for token, value in top if token.strip() == choice) for choice in choices
    }
    if not any(probabilities.values()):
        return NOTHING
    least = min(value for _, value in top)
    return {
        choice: math.log(probability) if probability else least
        for choice, probability in probabilities.items()
    }


def _top_tokens(logprobs: Any) -> list[tuple[str, float]]:
    """Return the likeliest first tokens and their log-probabilities; none where the server gives none."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = content[0] if isinstance(content, list) and content else None
    entries = first.get("top_logprobs") if isinstance(first, Mapping) else None
    tokens = []
    for entry in entries if isinstance(entries, list) else []:
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, Mapping) else (0, 0)
        if not isinstance(token, str) or not isinstance(value, int | float):
            continue
        if math.isfinite(value) and value <= 1e-3:
            tokens.append((token, min(float(value), 0.0)))
    return tokens


def _error_text(body: Mapping[str, Any]) -> Any:
    error = body.get("error", body)
    return error.get("message", error.get("detail", error)) if isinstance(error, Mapping) else error


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
