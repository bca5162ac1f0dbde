"""Typed decisions: a server is asked which of several responses is better, and answers by probabilities.

Two forms are spoken: `/v1/decisions` (OpenAI, SGLang, vLLM) and `/v1/systemone` (vLLM, transformers). Only
`probabilities` is read of an answer, since `confidence` means different things.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal

from basereward.errors import ConfigError, DataError, shown
from basereward.media.image import Image
from basereward.message import Message
from basereward.writers.chat_completions import WrongAnswer, data_url
from basereward.writers.http_sender import Failure, HttpSender
from basereward.writers.probe import blank_image
from basereward.writers.request import Completion, Request

COMPARES = "Which response is better?"
"""The instructions of a choice among responses to a prompt."""

DecisionForm = Literal["decisions", "systemone"]

ImageField = Literal["input_image", "assets", "images"]
"""The place of images: a part of a message, an object by placeholders, or a list."""

PLACEHOLDER = "[[image 1]]"
"""Stands in a state for the first image."""

MIN_LABEL_MASS = 0.1
"""The share of the probability below which the options of a question were not what the model would say."""

WAYS: Final[tuple[tuple[DecisionForm, ImageField], ...]] = (
    ("decisions", "input_image"),
    ("systemone", "assets"),
    ("systemone", "images"),
)


@dataclass(frozen=True)
class DecisionCapabilities:
    """The form that a server speaks, as a probe has shown.

    Args:
        form: The path's name.
        image_field: The place of images in a request.
        images: Whether it reads images; None where none may be sent to find out.
    """

    form: DecisionForm
    image_field: ImageField
    images: bool | None

    def __str__(self) -> str:
        words = {True: "yes", False: "no", None: "not tried"}
        return f"/v1/{self.form}, images {words[self.images]}"


class DecisionApi:
    """The API of a server of decisions.

    Args:
        form: The form to speak; None for the first one that the server knows.
    """

    takes_options = True

    def __init__(self, form: DecisionForm | None = None) -> None:
        self.form = form
        self.cache_key = ("decisions",)

    def path(self, capabilities: DecisionCapabilities) -> str:
        """Return the path of requests, below the base URL."""
        return f"/{capabilities.form}"

    def body(
        self, request: Request, model: str, capabilities: DecisionCapabilities, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the body of a request.

        Raises:
            DataError: When an image can't be read, or a message has something that can't be sent.
        """
        options = list(zip(request.choices, request.options, strict=True))
        if capabilities.form == "decisions":
            question: dict[str, Any] = {
                "type": "choice",
                "name": "q",
                "instructions": COMPARES,
                "choices": [{"value": value, "description": text} for value, text in options],
            }
            return {"model": model, "input": _input(request.messages), "questions": [question], **extra}
        question = {"type": "choice", "instructions": COMPARES, "criteria": dict(options)}
        state = _state(request.messages, capabilities.image_field)
        return {"model": model, **state, "questions": {"q": question}, **extra}

    def completion(self, answer: Any, request: Request) -> Completion:
        """Return the log-probabilities of an answer as a completion, whose text is the likeliest choice.

        One whose options have little of the model's probability has neither.

        Raises:
            WrongAnswer: When it is none to such a question.
        """
        if not isinstance(answer, Mapping):
            raise WrongAnswer(f"the answer is no JSON object: {shown(answer)}")
        answers = answer.get("answers")
        if isinstance(answers, Mapping):
            decision = answers.get("q")
        else:
            decision = answers[0] if isinstance(answers, list) and len(answers) == 1 else None
        if not isinstance(decision, Mapping):
            raise WrongAnswer(f"the answer has no answers with one decision: {shown(dict(answer))}")
        if decision.get("type") == "refusal":
            return Completion.failed("the server's model refuses to decide")
        shares = _probabilities(decision, request.choices)
        usage = answer.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        completion = Completion(
            num_prompt_tokens=token_count(usage) or 0, model=str(answer.get("model") or "")
        )
        if _label_mass(answer) < MIN_LABEL_MASS:
            return completion
        logs = {choice: math.log(max(share, sys.float_info.min)) for choice, share in shares.items()}
        return Completion(
            max(shares, key=lambda choice: shares[choice]),
            log_probabilities=logs,
            num_prompt_tokens=completion.num_prompt_tokens,
            model=completion.model,
        )

    async def probe(
        self, sender: HttpSender, model: str, extra: dict[str, Any], *, may_upload: bool
    ) -> DecisionCapabilities:
        """Return the form that a server speaks, by a question in each, without an image and with one.

        Servers leave out fields that they don't know without a word, so images count as read where the tokens
        of a prompt are others with one in it.

        Raises:
            ConfigError: When it speaks none.
        """
        reasons: list[str] = []
        spoken: DecisionCapabilities | None = None
        for form, image_field in WAYS:
            if self.form not in (None, form) or (spoken is not None and spoken.form != form):
                continue
            images = None
            try:
                plain = await self._asked(sender, model, DecisionCapabilities(form, image_field, None), extra)
                if may_upload:
                    images = await self._reads_images(sender, model, form, image_field, extra, plain)
            except (Failure, WrongAnswer) as error:
                if isinstance(error, Failure) and error.status is None:
                    raise ConfigError(f"the judge's server can't be asked: {error}") from error
                reasons.append(f"/v1/{form}: {error}")
                continue
            spoken = DecisionCapabilities(form, image_field, images)
            if images is not False:
                break
        if spoken is None:
            raise ConfigError(f"the judge's server makes no decisions: {'; '.join(dict.fromkeys(reasons))}")
        return spoken

    async def _reads_images(
        self,
        sender: HttpSender,
        model: str,
        form: DecisionForm,
        image_field: ImageField,
        extra: dict[str, Any],
        plain: int | None,
    ) -> bool:
        try:
            with_image = await self._asked(
                sender, model, DecisionCapabilities(form, image_field, True), extra, has_image=True
            )
        except (Failure, WrongAnswer):
            return False
        return plain is not None and with_image is not None and with_image != plain

    async def _asked(
        self,
        sender: HttpSender,
        model: str,
        capabilities: DecisionCapabilities,
        extra: dict[str, Any],
        *,
        has_image: bool = False,
    ) -> int | None:
        """Return how many tokens a server counts of a question."""
        # Without the image its placeholder is there all the same.
        image = blank_image() if has_image else PLACEHOLDER if capabilities.image_field == "assets" else ""
        prompt = Message("user", (image, "Which number is written here: 1?"))
        request = Request([prompt], choices=("1", "2"), options=("It is 1.", "It is 2."))
        body = self.body(request, model, capabilities, extra)
        # A server that hasn't the path, or can't take an image, may say so by 5xx, which no retry cures.
        answer = await sender.post(self.path(capabilities), body, max_tries=2)
        completion = self.completion(answer, request)
        if completion.ending == "failed":
            raise WrongAnswer(completion.reason)
        usage = answer.get("usage")
        return token_count(usage) if isinstance(usage, Mapping) else None


def token_count(usage: Mapping[str, Any]) -> int | None:
    """Return the tokens that were read; None where the server doesn't tell."""
    for name in ("input_tokens", "prompt_tokens"):
        value = usage.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _probabilities(decision: Mapping[str, Any], choices: Sequence[str]) -> dict[str, float]:
    """Return the probability of each choice.

    Raises:
        WrongAnswer: When one is missing, or they are no probabilities.
    """
    given = decision.get("probabilities")
    if isinstance(given, list):
        given = {
            entry.get("value"): entry.get("probability") for entry in given if isinstance(entry, Mapping)
        }
    if not isinstance(given, Mapping) or set(given) != set(choices):
        raise WrongAnswer(f"the answer has other probabilities than of the options: {shown(given)}")
    values = [given[choice] for choice in choices]
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        raise WrongAnswer(f"the answer's probabilities are none: {shown(values)}")
    if abs(sum(values) - 1) > 0.01:
        raise WrongAnswer(f"the answer's probabilities add up to {sum(values):.4g}, not to 1")
    return dict(zip(choices, map(float, values), strict=True))


def _label_mass(answer: Mapping[str, Any]) -> float:
    """Return the share of the probability that all options together have; 1 where the server doesn't tell."""
    diagnostics = answer.get("diagnostics")
    entry = diagnostics.get("q") if isinstance(diagnostics, Mapping) else None
    value = entry.get("label_mass") if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, int | float) else 1.0


def _check(message: Message) -> None:
    if message.given:
        raise DataError(f"{message.given_names} of a message can't be sent to a writer", field="prompt")
    if message.videos:
        raise DataError("videos aren't sent; give frames as images", field="videos")


def _input(messages: Sequence[Message]) -> str | list[dict[str, Any]]:
    """Return the input of `/v1/decisions`: a text, or messages."""
    turns = []
    for message in messages:
        _check(message)
        if message.role == "tool":
            raise DataError("a turn of a tool can't be sent for a decision", field="prompt")
        turns.append({"role": message.role, "content": _parts(message)})
    is_text = len(turns) == 1 and turns[0]["role"] == "user" and isinstance(turns[0]["content"], str)
    return turns[0]["content"] if is_text else turns


def _parts(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    if message.role != "user":
        raise DataError(
            f"an image in a turn of the {message.role} can't be sent for a decision", field="images"
        )
    return [
        {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
        if isinstance(part, Image)
        else {"type": "input_text", "text": part}
        for part in message.content
        if part
    ]


def _state(messages: Sequence[Message], image_field: ImageField) -> dict[str, Any]:
    """Return the fields of `/v1/systemone` for the state: a text, or messages, and images."""
    for message in messages:
        _check(message)
    text = "".join(message.text for message in messages)
    names = (name for number in count(1) if (name := PLACEHOLDER.replace("1", str(number))) not in text)
    placed: list[tuple[str, Image]] = []
    turns = []
    for message in messages:
        content = ""
        for part in message.content:
            if isinstance(part, Image):
                placed.append((next(names), part))
                content += placed[-1][0] if image_field == "assets" else ""
            else:
                content += str(part)
        turns.append({"role": message.role, "content": content})
    is_text = len(turns) == 1 and turns[0]["role"] == "user"
    fields: dict[str, Any] = {"state": turns[0]["content"] if is_text else {"messages": turns}}
    if placed and image_field == "assets":
        fields["assets"] = {name: _asset(image) for name, image in placed}
    elif placed:
        fields["images"] = [data_url(image) for _, image in placed]
    return fields


def _asset(image: Image) -> dict[str, str]:
    kind, _, encoded = data_url(image).partition(";base64,")
    return {"type": "image", "format": kind.rpartition("/")[2], "data_base64": encoded}
