"""`POST /v1/score/evaluation`: LLaMA-Factory's (2026-08), for its PPO with `reward_model_type: api`.

Its client sends whole conversations, rendered by the policy's template, and a model's name that can't be
chosen, which is passed over.
"""

from __future__ import annotations

import msgspec

from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect
from basereward.serving.request_reader import Call, Reader


class ScoreEvaluationRequest(msgspec.Struct):
    """Rendered conversations. `max_length` would cut, which is not done here: what is too long is refused."""

    messages: list[str]
    model: str | None = None
    max_length: int | None = None


class ScoreEvaluationResponse(msgspec.Struct):
    """The reward of each."""

    id: str
    model: str
    scores: list[float]
    object: str = "score.evaluation"


class LlamaFactory(Dialect):
    """`POST /v1/score/evaluation`."""

    paths = ("/v1/score/evaluation",)
    summary = "LLaMA-Factory: rewards of rendered conversations"
    request = ScoreEvaluationRequest
    responses = (ScoreEvaluationResponse,)

    def read(self, body: ScoreEvaluationRequest, reader: Reader) -> Call:
        """Read each conversation."""
        return Call(
            reader.each(
                body.messages, lambda text: reader.of_turns(rendered_chat.conversation(text)), "messages"
            )
        )

    def write(self, body: ScoreEvaluationRequest, answer: Answer) -> ScoreEvaluationResponse:
        """Write the rewards in their order."""
        return ScoreEvaluationResponse(answer.id, answer.engine.name, answer.rewards)
