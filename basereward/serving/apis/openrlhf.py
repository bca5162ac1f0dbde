"""OpenRLHF's remote reward model (`--reward.remote_url`), as of 2026-08.

Its client sends the text of prompt and response, and the prompt's beside it, a sample a request, and to the
second and later servers of a list empty lists. It reads `rewards`, `scores` and `extra_logs`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Call, Reader


class GetRewardRequest(msgspec.Struct):
    """Texts of prompt and response together, and of the prompts alone.

    `images`, beyond what OpenRLHF sends, are each sample's images as base64 or `data:` URLs.
    """

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None
    images: list[list[str]] | None = None


class GetRewardResponse(msgspec.Struct):
    """A reward for each query; `scores`, which OpenRLHF filters by, are the same."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class OpenRLHF(Dialect):
    """`POST /get_reward`."""

    paths = ("/get_reward",)
    summary = "OpenRLHF: rewards of texts that hold prompt and response"
    request = GetRewardRequest
    responses = (GetRewardResponse,)

    def read(self, body: GetRewardRequest, reader: Reader) -> Call:
        """Read each text, cut where its prompt ends."""
        prompts = body.prompts or [""] * len(body.query)
        images = body.images or [[]] * len(body.query)
        if len(prompts) != len(body.query) or len(images) != len(body.query):
            raise Problem("body_not_valid")
        rows = list(zip(body.query, prompts, images, strict=True))
        items = reader.each(
            rows, lambda row: reader.of_turns(rendered_chat.split(row[0], row[1]), row[2]), "query"
        )
        return Call(items)

    def write(self, body: GetRewardRequest, answer: Answer) -> GetRewardResponse:
        """Write the rewards; `extra_logs` holds numbers only, of which the client makes tensors."""
        rewards = answer.rewards
        return GetRewardResponse(rewards, rewards, {"reward": rewards})
