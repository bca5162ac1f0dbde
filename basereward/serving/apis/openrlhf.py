"""OpenRLHF's remote reward model (`--reward.remote_url`), as of 2026-08.

Its client sends the text of prompt and response and the text of the prompt, a sample per request, and empty
lists to all servers of a list but the first. It reads `rewards`, `scores` and `extra_logs`.
"""

from __future__ import annotations

import msgspec

from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class GetRewardRequest(RefusedFields, kw_only=True):
    """Texts of prompt and response together, and texts of the prompts alone.

    `images`, beyond what OpenRLHF sends, are each sample's images as base64 or `data:` URLs.
    """

    query: list[str]
    prompts: list[str] | None = None
    images: list[list[str]] | None = None


class GetRewardResponse(msgspec.Struct):
    """A reward for each query; `scores`, which OpenRLHF filters by, are the same."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class OpenRLHF(Api):
    """`POST /get_reward`."""

    paths = ("/get_reward",)
    summary = "OpenRLHF: rewards of texts that hold prompt and response"
    request_type = GetRewardRequest
    response_types = (GetRewardResponse,)

    def parse(self, body: GetRewardRequest, parser: RequestParser) -> ScoringRequest:
        """Parse each text, cut where its prompt ends."""
        prompts = body.prompts or [""] * len(body.query)
        images = body.images or [[]] * len(body.query)
        if len(prompts) != len(body.query) or len(images) != len(body.query):
            raise Problem("body_not_valid")
        rows = list(zip(body.query, prompts, images, strict=True))
        return ScoringRequest(parser.each(rows, lambda row: parser.divided(*row), "query"))

    def write(self, body: GetRewardRequest, response: ScoringResponse) -> GetRewardResponse:
        """Write the rewards; `extra_logs` holds numbers only, since the client makes tensors of them."""
        rewards = response.rewards
        return GetRewardResponse(rewards, rewards, {"reward": rewards})
