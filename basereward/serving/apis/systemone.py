"""`POST /v1/systemone` as vLLM (0.33) and transformers (5.24) have it: typed questions about a state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from basereward.comparison import Comparison
from basereward.message import Message, Part
from basereward.serving.apis.base import Api, RefusedFields, RequestFields, ScoringResponse
from basereward.serving.apis.chat import ChatMessage, prompt_of
from basereward.serving.apis.typed_questions import (
    TypedQuestion,
    answers_of,
    best_of,
    content_text,
    expected_level,
)
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest, message


class Choice(RequestFields, tag_field="type", tag="choice"):
    """Options by name, each with the text of a response, or null where its name is that text."""

    criteria: dict[str, Any]
    instructions: Any = None


class YesNoCriteria(RequestFields):
    """The texts that stand for yes and no, in the place of "Yes" and "No"."""

    true: Any = None
    false: Any = None


class Noul(RequestFields, tag_field="type", tag="noul"):
    """A yes/no question."""

    criteria: YesNoCriteria | None = None
    instructions: Any = None


class ScoreLevels(RequestFields, tag_field="type", tag="score"):
    """Texts of levels, the lowest first."""

    criteria: list[Any]
    instructions: Any = None


class Asset(RequestFields):
    """An image as base64; `type` and `format` are ignored."""

    data_base64: str
    type: Any = None
    format: Any = None


class SystemOneRequest(RefusedFields, kw_only=True):
    """Questions by name about a state: a text, messages of a chat, or other JSON, which is read as its text.

    Images are `images`, as base64 or `data:` URLs for the `<image>` placeholders of the state, or `assets`,
    by the placeholders that stand for them in state and instructions. `instructions` is a message of the
    system; `seed` is ignored.
    """

    state: Any
    questions: dict[str, Choice | Noul | ScoreLevels]
    model: str | None = None
    instructions: str | None = None
    images: list[str] = msgspec.field(default_factory=list)
    assets: dict[str, Asset] = msgspec.field(default_factory=dict)
    seed: Any = None


class ChoiceAnswer(msgspec.Struct, tag_field="type", tag="choice"):
    """The likeliest option and the probability of each; `confidence` is that of the likeliest."""

    choice: str
    confidence: float
    probabilities: dict[str, float]


class NoulAnswer(msgspec.Struct, tag_field="type", tag="noul"):
    """The probability of yes."""

    noul: float


class ScoreAnswer(msgspec.Struct, tag_field="type", tag="score"):
    """The expected level, and the probability of each by its number."""

    score: float
    legend: dict[str, Any]
    confidence: float
    probabilities: dict[str, float]


class SystemOneUsage(msgspec.Struct):
    """Tokens of a request."""

    input_tokens: int
    output_tokens: int = 0


class Diagnostics(msgspec.Struct):
    """The share of the probability that the options have: all of it, since nothing else is scored."""

    label_mass: float = 1.0
    argmax_is_label: bool = True


class SystemOneResponse(msgspec.Struct):
    """The answers by the names of the questions."""

    id: str
    created: int
    model: str
    answers: dict[str, ChoiceAnswer | NoulAnswer | ScoreAnswer]
    usage: SystemOneUsage
    diagnostics: dict[str, Diagnostics]
    object: str = "structured_decision"


class SystemOne(Api):
    """`POST /v1/systemone`."""

    paths = ("/v1/systemone",)
    summary = "vLLM and transformers: typed questions about a state, answered by probabilities"
    request_type = SystemOneRequest
    response_types = (SystemOneResponse,)
    keeps_nulls: ClassVar[frozenset[str]] = frozenset(("criteria", "state"))

    def parse(self, body: SystemOneRequest, parser: RequestParser) -> ScoringRequest:
        """Parse each question as a prompt with its options as responses."""
        if not body.questions:
            raise Problem("question_missing", "questions")
        assets = _Assets(body.assets, parser)
        try:
            prompt = _state(body.state, parser, assets)
            if body.instructions is not None:
                prompt = [message("system", body.instructions), *prompt]
            # A response of no meaning: the prompt is checked, and has its images in their places.
            prompt = list(parser.comparison(prompt, ["-"], body.images).prompt)
        except Problem as problem:
            raise problem.at("state") from None

        def comparison(question: Choice | Noul | ScoreLevels) -> Comparison:
            options = [text for _, text in _options(question)]
            typed = TypedQuestion(
                _KINDS[type(question)], assets.parts(question.instructions), options, "criteria"
            )
            return typed.comparison(prompt, parser)

        items = parser.each(list(body.questions.values()), comparison, "questions")
        assets.check_used()
        return ScoringRequest(items, body.model, param="questions")

    def write(self, body: SystemOneRequest, response: ScoringResponse) -> SystemOneResponse:
        """Write the answers."""
        answers = {
            name: _answer(question, probabilities)
            for (name, question), probabilities in zip(
                body.questions.items(), answers_of(response), strict=True
            )
        }
        return SystemOneResponse(
            response.id,
            response.created,
            response.engine.name,
            answers,
            SystemOneUsage(response.num_tokens),
            {name: Diagnostics() for name in body.questions},
        )


_KINDS: dict[type, Any] = {Choice: "choice", Noul: "yes/no", ScoreLevels: "score"}


def _options(question: Choice | Noul | ScoreLevels) -> list[tuple[str, str]]:
    """Return name and text of each option."""
    if isinstance(question, Choice):
        return [
            (name, name if text is None else content_text(text)) for name, text in question.criteria.items()
        ]
    if isinstance(question, ScoreLevels):
        return [(str(number), content_text(text)) for number, text in enumerate(question.criteria)]
    criteria = question.criteria or YesNoCriteria()
    return [("true", content_text(criteria.true) or "Yes"), ("false", content_text(criteria.false) or "No")]


def _answer(
    question: Choice | Noul | ScoreLevels, probabilities: Sequence[float]
) -> ChoiceAnswer | NoulAnswer | ScoreAnswer:
    if isinstance(question, Noul):
        return NoulAnswer(probabilities[0])
    names = [name for name, _ in _options(question)]
    best = best_of(probabilities)
    by_name = dict(zip(names, probabilities, strict=True))
    if isinstance(question, Choice):
        return ChoiceAnswer(names[best], probabilities[best], by_name)
    legend = dict(zip(names, question.criteria, strict=True))
    return ScoreAnswer(expected_level(probabilities), legend, probabilities[best], by_name)


class _Assets:
    """Images by the placeholders that stand for them."""

    def __init__(self, assets: Mapping[str, Asset], parser: RequestParser) -> None:
        if "" in assets:
            raise Problem("body_not_valid", "assets")
        self._images = {}
        for number, (name, asset) in enumerate(assets.items()):
            try:
                self._images[name] = parser.image(asset.data_base64)
            except Problem as problem:
                raise problem.at(f"assets[{number}]") from None
        names = sorted(assets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None
        self._unused = set(assets)

    def parts(self, value: Any) -> list[Part]:
        """Return a text, or JSON as its text, with images in the places of their placeholders."""
        text = content_text(value)
        parts: list[Part] = []
        end = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            self._unused.discard(match[0])
            parts += [text[end : match.start()], self._images[match[0]]]
            end = match.end()
        return [part for part in [*parts, text[end:]] if part != ""]

    def check_used(self) -> None:
        """Refuse images that no text has a place for."""
        if self._unused:
            raise Problem("image_without_placeholder", "assets")


def _state(state: Any, parser: RequestParser, assets: _Assets) -> list[Message]:
    """Return the prompt of a state; a list of objects with a role, bare or as `messages`, is a chat."""
    turns = state["messages"] if isinstance(state, dict) and state.keys() == {"messages"} else state
    is_chat = isinstance(turns, list) and all(isinstance(turn, dict) and "role" in turn for turn in turns)
    if not is_chat or not turns:
        return [message("user", *assets.parts(state))]
    try:
        messages = msgspec.convert(turns, list[ChatMessage])
    except msgspec.ValidationError:
        raise Problem("body_not_valid") from None
    return [
        turn.with_content(
            piece
            for part in turn.content
            for piece in (assets.parts(part) if isinstance(part, str) else [part])
        )
        for turn in prompt_of(messages, parser)
    ]
