"""`POST /v1/decisions` as OpenAI's client (3.57), SGLang and vLLM (0.33) have it: typed questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from basereward.comparison import Comparison
from basereward.message import Message, Part
from basereward.serving.apis.base import Api, RefusedFields, RequestFields, ScoringResponse
from basereward.serving.apis.typed_questions import (
    TypedQuestion,
    answers_of,
    best_of,
    content_text,
    expected_level,
)
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest, message


class InputPart(RequestFields):
    """A piece of the input: a text, an image as a `data:` URL, or JSON, which is read as its text.

    `detail` and `prompt_cache_breakpoint` are ignored.
    """

    type: Literal["input_text", "output_text", "input_image", "input_json"]
    text: str | None = None
    image_url: str | None = None
    data: Any = None
    detail: Any = None
    prompt_cache_breakpoint: Any = None


class InputMessage(RequestFields):
    """A message of the input; `type` and `phase` are ignored."""

    role: Literal["user", "developer", "system", "assistant"]
    content: str | list[InputPart]
    type: Literal["message"] = "message"
    phase: Any = None


class PredicateQuestion(RequestFields, tag_field="type", tag="predicate"):
    """A statement of which the probability is asked."""

    instructions: str | list[InputPart]
    name: str | None = None


class ChoiceOption(RequestFields):
    """An option, with the text of a response, or none where its value is that text."""

    value: str | bool
    description: str | None = None


class ChoiceQuestion(RequestFields, tag_field="type", tag="choice"):
    """A question with options."""

    choices: list[ChoiceOption]
    instructions: str | list[InputPart]
    name: str | None = None


class Level(RequestFields):
    """A level, with the text of a response, or none where its label is that text."""

    label: str
    description: str | None = None


class ScoreQuestion(RequestFields, tag_field="type", tag="score"):
    """A question with levels, the lowest first."""

    levels: list[Level]
    instructions: str | list[InputPart]
    name: str | None = None


class DecisionsRequest(RefusedFields, kw_only=True):
    """Questions about a text or about messages; what concerns a cache is ignored."""

    input: str | list[InputMessage]
    questions: list[PredicateQuestion | ChoiceQuestion | ScoreQuestion]
    model: str | None = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    safety_identifier: Any = None


class PredicateAnswer(msgspec.Struct, tag_field="type", tag="predicate"):
    """The probability of the statement."""

    name: str | None
    probability: float


class OptionProbability(msgspec.Struct):
    """The probability of an option."""

    value: str | bool
    probability: float


class DecidedChoice(msgspec.Struct, tag_field="type", tag="choice"):
    """The likeliest option and the probability of each; `confidence` is that of the likeliest."""

    name: str | None
    choice: str | bool
    confidence: float
    probabilities: list[OptionProbability]


class LevelProbability(msgspec.Struct):
    """The probability of a level."""

    value: int
    label: str
    probability: float


class DecidedScore(msgspec.Struct, tag_field="type", tag="score"):
    """The expected level, counted from 0, and the probability of each."""

    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


class InputTokens(msgspec.Struct):
    """Tokens that a cache had."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokens(msgspec.Struct):
    """Tokens of reasoning, of which there are none."""

    reasoning_tokens: int = 0


class DecisionsUsage(msgspec.Struct):
    """Tokens of a request."""

    input_tokens: int
    total_tokens: int
    output_tokens: int = 0
    input_tokens_details: InputTokens = msgspec.field(default_factory=InputTokens)
    output_tokens_details: OutputTokens = msgspec.field(default_factory=OutputTokens)


class DecisionsResponse(msgspec.Struct):
    """The answers in the order of the questions."""

    id: str
    created: int
    model: str
    answers: list[PredicateAnswer | DecidedChoice | DecidedScore]
    usage: DecisionsUsage
    object: str = "decision"


class Decisions(Api):
    """`POST /v1/decisions`."""

    paths = ("/v1/decisions",)
    summary = "OpenAI, SGLang and vLLM: typed questions about an input, answered by probabilities"
    request_type = DecisionsRequest
    response_types = (DecisionsResponse,)

    def parse(self, body: DecisionsRequest, parser: RequestParser) -> ScoringRequest:
        """Parse each question as a prompt with its options as responses."""
        if not body.questions:
            raise Problem("question_missing", "questions")
        try:
            # A response of no meaning: the prompt is checked.
            prompt = list(parser.comparison(_messages(body.input, parser), ["-"]).prompt)
        except Problem as problem:
            raise problem.at("input") from None

        def comparison(question: PredicateQuestion | ChoiceQuestion | ScoreQuestion) -> Comparison:
            kind, options, param = _options(question)
            instructions = _parts(question.instructions, parser)
            return TypedQuestion(kind, instructions, options, param).comparison(prompt, parser)

        return ScoringRequest(
            parser.each(body.questions, comparison, "questions"), body.model, param="questions"
        )

    def write(self, body: DecisionsRequest, response: ScoringResponse) -> DecisionsResponse:
        """Write the answers."""
        answers = [
            _answer(question, probabilities)
            for question, probabilities in zip(body.questions, answers_of(response), strict=True)
        ]
        usage = DecisionsUsage(response.num_tokens, response.num_tokens)
        return DecisionsResponse(response.id, response.created, response.engine.name, answers, usage)


def _options(question: PredicateQuestion | ChoiceQuestion | ScoreQuestion) -> tuple[Any, list[str], str]:
    """Return the kind of a question, the text of each option, and the field that holds them.

    Raises:
        Problem: When two options are the same.
    """
    if isinstance(question, PredicateQuestion):
        return "yes/no", ["Yes", "No"], "instructions"
    if isinstance(question, ScoreQuestion):
        return "score", [level.description or level.label for level in question.levels], "levels"
    values = [(type(option.value), option.value) for option in question.choices]
    for number, value in enumerate(values):
        if value in values[:number]:
            raise Problem("option_repeated", f"choices[{number}]")
    return (
        "choice",
        [option.description or content_text(option.value) for option in question.choices],
        "choices",
    )


def _answer(
    question: PredicateQuestion | ChoiceQuestion | ScoreQuestion, probabilities: Sequence[float]
) -> PredicateAnswer | DecidedChoice | DecidedScore:
    best = best_of(probabilities)
    if isinstance(question, PredicateQuestion):
        return PredicateAnswer(question.name, probabilities[0])
    if isinstance(question, ChoiceQuestion):
        shares = [
            OptionProbability(option.value, probability)
            for option, probability in zip(question.choices, probabilities, strict=True)
        ]
        return DecidedChoice(question.name, question.choices[best].value, probabilities[best], shares)
    levels = [
        LevelProbability(number, level.label, probability)
        for number, (level, probability) in enumerate(zip(question.levels, probabilities, strict=True))
    ]
    return DecidedScore(question.name, expected_level(probabilities), probabilities[best], levels)


def _messages(given: str | Sequence[InputMessage], parser: RequestParser) -> list[Message]:
    if isinstance(given, str):
        return [message("user", given)]
    return [
        message("system" if turn.role == "developer" else turn.role, *_parts(turn.content, parser))
        for turn in given
    ]


def _parts(content: str | Sequence[InputPart], parser: RequestParser) -> list[Part]:
    if isinstance(content, str):
        return [content]
    return [_part(part, parser) for part in content]


_VALUES = {"input_text": "text", "output_text": "text", "input_image": "image_url", "input_json": "data"}
"""The field that holds the value of a piece, by its type."""


def _part(part: InputPart, parser: RequestParser) -> Part:
    """Return a piece; one with a value of another type, which would be left out, is refused."""
    for name in ("text", "image_url", "data"):
        if (getattr(part, name) is None) == (name == _VALUES[part.type]):
            raise Problem("body_not_valid", name)
    if part.type == "input_image":
        return parser.image(part.image_url or "")
    return content_text(part.data) if part.type == "input_json" else part.text or ""
