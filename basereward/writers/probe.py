"""A request that finds out what a server heeds: log-probabilities, several completions, a seed, images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from basereward.errors import ConfigError
from basereward.media.image import Image
from basereward.message import Message
from basereward.writers.chat_completions import (
    Capabilities,
    WrongAnswer,
    body_of,
    completion_of,
    has_logprobs,
)
from basereward.writers.http_sender import Failure, HttpSender
from basereward.writers.request import Request

MAX_TOKENS = 16
"""Enough for servers that refuse fewer."""


async def served_model(sender: HttpSender) -> str:
    """Return the only model of a server.

    Raises:
        ConfigError: When there are several, or the server can't be asked.
    """
    where = sender.addresses[0].url
    try:
        listing = await sender.get("/models")
        names = [str(entry["id"]) for entry in listing["data"]]
    except (Failure, WrongAnswer) as error:
        raise ConfigError(f"{error}; name the model: model = ...") from error
    except (TypeError, KeyError, IndexError):
        raise ConfigError(f"{where} lists no models; name the model: model = ...") from None
    if len(names) != 1:
        raise ConfigError(
            f"{where} serves {len(names)} models ({', '.join(names[:5])}); name one: model = ..."
        )
    return names[0]


async def probe(sender: HttpSender, model: str, extra: dict[str, Any], *, may_upload: bool) -> Capabilities:
    """Return what a server heeds, by a request that asks for all of it, and fewer where it is refused.

    Args:
        sender: To the server.
        model: The model.
        extra: Fields of every request.
        may_upload: Whether an image may be sent.

    Raises:
        ConfigError: When the server answers nothing that is a completion.
    """
    reason = ""
    for wanted in _ladder(may_upload):
        request = _request(has_image=bool(wanted.images), wanted=wanted)
        body = body_of(request, model, wanted, {"n": 2, **extra} if wanted.n else extra)
        body[wanted.token_limit] = MAX_TOKENS
        try:
            # A server that can't take an image may say so by 500, which no retry cures.
            answer = await sender.post("/chat/completions", body, max_tries=2 if wanted.n else None)
            completion = completion_of(answer, request)
            if completion.ending == "failed":
                raise WrongAnswer(completion.reason)
        except (Failure, WrongAnswer) as error:
            reason = reason if isinstance(error, Failure) and error.status is None and reason else str(error)
            if isinstance(error, Failure) and error.status is None:
                break  # it can't be reached: no other request will do better
            continue
        return Capabilities(
            logprobs=wanted.logprobs and has_logprobs(answer),
            n=wanted.n and len(answer["choices"]) == 2,
            seed=wanted.seed,
            images=wanted.images if may_upload else None,
            token_limit=wanted.token_limit,
        )
    raise ConfigError(f"the judge's server gives no completion: {reason}")


def _ladder(may_upload: bool) -> Iterator[Capabilities]:
    """Yield what is asked for, less each time."""
    if may_upload:
        yield Capabilities()
    yield Capabilities(images=False)
    if may_upload:
        yield Capabilities(False, False, False, True)
    yield Capabilities(False, False, False, False)
    yield Capabilities(False, False, False, False, "max_completion_tokens")


def _request(*, has_image: bool, wanted: Capabilities) -> Request:
    text = "Which number is written here: 1? Answer with the number."
    content = (blank_image(), text) if has_image else (text,)
    return Request(
        [Message("user", content)],
        temperature=1.0 if wanted.seed else 0.0,
        max_tokens=MAX_TOKENS,
        choices=("1", "2") if wanted.logprobs else (),
    )


def blank_image() -> Image:
    """Return a grey image, as large as the smallest that models take."""
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (56, 56), (128, 128, 128)).save(buffer, "PNG")
    return Image(buffer.getvalue())
