"""Typed questions about a state, answered by rewards: a question's options are scored as responses.

The prompt is the state with the question's instructions behind it. The probabilities of the options are the
softmax of their rewards over the model's temperature.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from basereward.comparison import Comparison
from basereward.message import Message, Part
from basereward.serving.apis.base import Scored, ScoringResponse
from basereward.serving.apis.chat import text_of_parts
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, message
from basereward.stats.calibration import Calibration
from basereward.writers.decision_api import COMPARES

JUDGES = "Is the response good?"
"""The instructions of a yes/no question about the last turn of the conversation.

As `COMPARES` of a choice they add nothing to the prompt: a reward model answers that anyway.
"""

Kind = Literal["choice", "yes/no", "score"]


@dataclass(frozen=True)
class TypedQuestion:
    """A question of either API.

    Args:
        kind: Its type.
        instructions: Texts and images; empty where there are none.
        options: A text for each option, in the question's order; the first one of a yes/no question is yes.
        options_param: The field of a question that holds the options.
    """

    kind: Kind
    instructions: Sequence[Part]
    options: Sequence[str]
    options_param: str

    def comparison(self, prompt: Sequence[Message], parser: RequestParser) -> Comparison:
        """Return the comparison whose rewards answer the question.

        Args:
            prompt: The state.
            parser: Builds the comparison within limits.

        Raises:
            Problem: When instructions or options are missing, or over a limit.
        """
        if len(self.options) < 2:
            raise Problem("too_few_options", self.options_param)
        asked = "".join(part for part in self.instructions if isinstance(part, str)).strip()
        asks_more = len(self.instructions) > 1 or asked not in ("", COMPARES, JUDGES)
        if self.kind == "yes/no" and not asks_more and asked != COMPARES and prompt[-1].role == "assistant":
            return parser.comparison(prompt[:-1], [text_of_parts(prompt[-1].content)])
        if self.kind == "choice" and not asks_more and asked != JUDGES:
            return parser.comparison(prompt, self.options)
        if not asked and not asks_more:
            raise Problem("instructions_missing", "instructions")
        return parser.comparison(_asking(prompt, self.instructions), self.options)


def _asking(prompt: Sequence[Message], instructions: Sequence[Part]) -> list[Message]:
    """Return a prompt whose last words, of the user, are a question."""
    if prompt[-1].role != "user":
        return [*prompt, message("user", *instructions)]
    last = prompt[-1]
    return [*prompt[:-1], last.with_content([*last.content, "\n\n", *instructions])]


def probabilities_of(scored: Scored, calibration: Calibration) -> list[float]:
    """Return the probability of each option of a question; of yes and no where one response was scored.

    Raises:
        Problem: When the model's mean reward is not known, over which a response of its own is good.
    """
    rewards = scored.rewards.values
    if len(rewards) > 1:
        return calibration.probabilities(rewards)
    probability = calibration.above_mean(rewards[0])
    if probability is None:
        raise Problem("mean_reward_unknown")
    return [probability, 1 - probability]


def answers_of(response: ScoringResponse) -> list[list[float]]:
    """Return the probabilities of each question's options.

    Raises:
        Problem: Naming the question that has none.
    """
    answers = []
    for number, scored in enumerate(response.scored):
        try:
            answers.append(probabilities_of(scored, response.engine.calibration))
        except Problem as problem:
            raise problem.at(f"questions[{number}]") from None
    return answers


def expected_level(probabilities: Sequence[float]) -> float:
    """Return the mean number of a level, counted from 0."""
    return sum(level * probability for level, probability in enumerate(probabilities))


def best_of(probabilities: Sequence[float]) -> int:
    """Return the number of the likeliest option, the first of those that are alike."""
    return max(range(len(probabilities)), key=lambda number: probabilities[number])


def content_text(value: Any) -> str:
    """Return a text as it is, null as an empty text, and other JSON as its text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
