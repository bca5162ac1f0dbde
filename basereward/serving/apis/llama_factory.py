"""`POST /v1/score/evaluation`: LLaMA-Factory's (2026-08), for its PPO with `reward_model_type: api`.

Its client sends whole conversations, rendered by the policy's template, and a fixed model name, which is
ignored.
"""

from __future__ import annotations

import msgspec

from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse
from basereward.serving.request_parser import RequestParser, ScoringRequest


class ScoreEvaluationRequest(RefusedFields, kw_only=True):
    """Rendered conversations. `max_length` is ignored: long texts are refused, not cut."""

    messages: list[str]
    model: str | None = None


class ScoreEvaluationResponse(msgspec.Struct):
    """The reward of each conversation."""

    id: str
    model: str
    scores: list[float]
    object: str = "score.evaluation"


class LlamaFactory(Api):
    """`POST /v1/score/evaluation`."""

    paths = ("/v1/score/evaluation",)
    summary = "LLaMA-Factory: rewards of rendered conversations"
    request_type = ScoreEvaluationRequest
    response_types = (ScoreEvaluationResponse,)

    def parse(self, body: ScoreEvaluationRequest, parser: RequestParser) -> ScoringRequest:
        """Parse each conversation."""
        return ScoringRequest(parser.each(body.messages, parser.conversation, "messages"))

    def write(self, body: ScoreEvaluationRequest, response: ScoringResponse) -> ScoreEvaluationResponse:
        """Write the rewards in their order."""
        return ScoreEvaluationResponse(response.id, response.engine.name, response.rewards)
