"""`POST /predict`: that of Hugging Face's text-embeddings-inference (2026-07)."""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect, activated
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Call, Reader, message

KINDS = {401: "Unauthorized", 413: "Validation", 429: "Overloaded", 503: "Unhealthy", 504: "Overloaded"}
"""TEI's kinds of errors by status; others below 500 are of validation, others above of the backend."""


class PredictRequest(msgspec.Struct):
    """A rendered conversation, a pair of prompt and response, or a list of lists of one or two such texts.

    `truncate` allows what is not done here: what is too long is refused.
    """

    inputs: str | list[str | list[str]]
    raw_scores: bool = False
    truncate: bool | None = None


class Prediction(msgspec.Struct):
    """The sigmoid of a reward, or with `raw_scores` the reward."""

    score: float
    label: str


class TEIError(msgspec.Struct):
    """TEI's errors."""

    error: str
    error_type: str


class Predict(Dialect):
    """`POST /predict`."""

    paths = ("/predict",)
    summary = "TEI: rewards of pairs of prompt and response"
    request = PredictRequest
    responses = (list[Prediction], list[list[Prediction]])
    failure = TEIError

    def read(self, body: PredictRequest, reader: Reader) -> Call:
        """Read one input or several."""
        return Call(reader.each(_rows(body.inputs), lambda row: self._comparison(row, reader), "inputs"))

    def _comparison(self, row: list[str], reader: Reader) -> Comparison:
        if len(row) == 1:
            return reader.of_turns(rendered_chat.conversation(row[0]))
        if len(row) != 2:
            raise Problem("body_not_valid")
        return reader.comparison([message("user", row[0])], row[1:])

    def write(self, body: PredictRequest, answer: Answer) -> Any:
        """Write each as a list of one label."""
        found = [
            [Prediction(activated(own, is_asked=not body.raw_scores), "LABEL_0")] for own in answer.rewards
        ]
        return found if _is_batch(body.inputs) else found[0]

    def problem(self, problem: Problem) -> Any:
        """Write what is wrong as TEI does, with our code in front."""
        kind = KINDS.get(problem.status, "Validation" if problem.status < 500 else "Backend")
        return TEIError(f"{problem.code}: {problem.message}", kind)


def _is_batch(inputs: str | list[str | list[str]]) -> bool:
    return not isinstance(inputs, str) and not all(isinstance(own, str) for own in inputs)


def _rows(inputs: str | list[str | list[str]]) -> list[list[str]]:
    if isinstance(inputs, str):
        return [[inputs]]
    single = [own for own in inputs if isinstance(own, str)]
    if single and len(single) == len(inputs):
        return [single]
    rows = [own for own in inputs if isinstance(own, list)]
    if not rows or len(rows) != len(inputs):
        raise Problem("body_not_valid", "inputs")
    return rows
