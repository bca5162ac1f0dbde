"""`POST /predict` of Hugging Face's text-embeddings-inference (TEI, 2026-07)."""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.serving.apis.base import (
    REFUSED_FIELDS,
    UNREAD_FIELDS,
    Api,
    RefusedFields,
    ScoringResponse,
    activated,
)
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest, message

KINDS = {401: "Unauthorized", 413: "Validation", 429: "Overloaded", 503: "Unhealthy", 504: "Overloaded"}
"""TEI's error types by status; other statuses below 500 are `Validation`, others above `Backend`."""


class PredictRequest(RefusedFields, kw_only=True):
    """A rendered conversation, a pair of prompt and response, or a list of lists of one or two such texts.

    `truncate` and `truncation_direction` are ignored: long texts are refused, not cut.
    """

    inputs: str | list[str | list[str]]
    raw_scores: bool = False


class Prediction(msgspec.Struct):
    """The sigmoid of a reward, or with `raw_scores` the reward."""

    score: float
    label: str


class TEIError(msgspec.Struct):
    """TEI's error body."""

    error: str
    error_type: str


class Predict(Api):
    """`POST /predict`."""

    paths = ("/predict",)
    summary = "TEI: rewards of pairs of prompt and response"
    request_type = PredictRequest
    response_types = (list[Prediction], list[list[Prediction]])
    error_type = TEIError

    def parse(self, body: PredictRequest, parser: RequestParser) -> ScoringRequest:
        """Parse one input or several."""
        return ScoringRequest(
            parser.each(_rows(body.inputs), lambda row: self._comparison(row, parser), "inputs")
        )

    def _comparison(self, row: list[str], parser: RequestParser) -> Comparison:
        if len(row) == 1:
            return parser.conversation(row[0])
        if len(row) != 2:
            raise Problem("body_not_valid")
        return parser.comparison([message("user", row[0])], row[1:])

    def write(self, body: PredictRequest, response: ScoringResponse) -> Any:
        """Write each reward as a list of one label."""
        predictions = [
            [Prediction(activated(reward, is_asked=not body.raw_scores), "LABEL_0")]
            for reward in response.rewards
        ]
        return predictions if _is_batch(body.inputs) else predictions[0]

    def write_error(self, problem: Problem) -> TEIError:
        """Write a problem as TEI writes errors, with our code in front."""
        kind = KINDS.get(problem.status, "Validation" if problem.status < 500 else "Backend")
        # TEI's body has no place for it, so that a field that isn't read is named in the text.
        is_named = (problem.param or "").rpartition(".")[2] in (*UNREAD_FIELDS, *REFUSED_FIELDS)
        place = f" ({problem.param})" if is_named else ""
        return TEIError(f"{problem.code}: {problem.message}{place}", kind)


def _is_batch(inputs: str | list[str | list[str]]) -> bool:
    return not isinstance(inputs, str) and not all(isinstance(entry, str) for entry in inputs)


def _rows(inputs: str | list[str | list[str]]) -> list[list[str]]:
    if isinstance(inputs, str):
        return [[inputs]]
    single = [entry for entry in inputs if isinstance(entry, str)]
    if single and len(single) == len(inputs):
        return [single]
    rows = [entry for entry in inputs if isinstance(entry, list)]
    if not rows or len(rows) != len(inputs):
        raise Problem("body_not_valid", "inputs")
    return rows
