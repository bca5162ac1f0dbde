"""`POST /reward`: slime's (2026-08) `--rm-type remote_rm --rm-url URL`, one sample a request.

The response body is the bare reward. For `--reward-key NAME` it is an object with the reward under that name,
which the URL has to repeat: `/reward?key=NAME`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.data import rendered_chat
from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse
from basereward.serving.apis.chat import ChatMessage, prompt_of
from basereward.serving.request_parser import RequestParser, ScoringRequest


class RewardRequest(RefusedFields, kw_only=True):
    """A prompt, rendered or plain or as messages, and a response.

    `images`, beyond what slime sends, are the prompt's images as base64 or `data:` URLs.
    """

    prompt: str | list[ChatMessage]
    response: str
    images: list[str] = msgspec.field(default_factory=list)


class Slime(Api):
    """`POST /reward`."""

    paths = ("/reward",)
    summary = "slime: the reward of one response"
    request_type = RewardRequest
    response_types = (float, dict[str, float])

    def parse(self, body: RewardRequest, parser: RequestParser) -> ScoringRequest:
        """Parse the sample."""
        return ScoringRequest(parser.each([body], lambda body: self._comparison(body, parser), "samples"))

    def _comparison(self, body: RewardRequest, parser: RequestParser) -> Comparison:
        if isinstance(body.prompt, str):
            return parser.continued(body.prompt, body.response, body.images)
        response = rendered_chat.without_end(body.response)
        return parser.comparison(prompt_of(body.prompt, parser), [response], body.images)

    def write(self, body: RewardRequest, response: ScoringResponse) -> Any:
        """Write the bare reward, or an object with it under the key of the URL."""
        [reward] = response.rewards
        key = response.query.get("key")
        return {key: reward} if key else reward
