"""`POST /v1/rewards`, the native API: prompts with N responses each, every prompt encoded once."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from basereward.comparison import Comparison
from basereward.serving.apis.base import Api, ErrorBody, RequestFields, ScoringResponse, error_of
from basereward.serving.apis.chat import ChatMessage, last_turn, prompt_of
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class RewardItem(RequestFields):
    """An item with `prompt` and `responses`, or with `messages` of which the last is the assistant's.

    `images`, as base64 or `data:` URLs, are for the `<image>` placeholders of the prompt in their order;
    without placeholders they come before the first user message's text. Images may stand in the messages
    instead. `tools` go to the chat template.
    """

    prompt: str | list[ChatMessage] | None = None
    responses: list[str] | None = None
    messages: list[ChatMessage] | None = None
    images: list[str] = msgspec.field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    id: str | None = None


class RewardsRequest(RequestFields):
    """The items to score; with `on_error` as `null`, an item with a problem doesn't fail the others."""

    items: list[RewardItem]
    model: str | None = None
    on_error: Literal["fail", "null"] = "fail"


class ItemRewards(msgspec.Struct):
    """The rewards of an item's responses, in their order; null where there is an `error`."""

    index: int
    id: str | None
    rewards: list[float] | None
    error: ErrorBody | None
    tokens: int
    members: dict[str, list[float]] | None = None
    disagreement: list[float] | None = None


class RewardsResponse(msgspec.Struct):
    """The rewards of all items; `seconds` has the durations of reading and of scoring."""

    id: str
    created: int
    model: str
    model_digest: str
    template_digest: str
    data: list[ItemRewards]
    tokens: int
    seconds: dict[str, float]


class Native(Api):
    """`POST /v1/rewards`."""

    paths = ("/v1/rewards",)
    summary = "Rewards of each prompt's responses"
    request_type = RewardsRequest
    response_types = (RewardsResponse,)

    def parse(self, body: RewardsRequest, parser: RequestParser) -> ScoringRequest:
        """Parse each item."""
        items = parser.each(body.items, lambda item: self._comparison(item, parser), "items")
        return ScoringRequest(items, body.model, keeps_going=body.on_error == "null")

    def _comparison(self, item: RewardItem, parser: RequestParser) -> Comparison:
        if (item.messages is None) == (item.prompt is None):
            raise Problem("body_not_valid", "prompt" if item.messages is None else "messages")
        if (item.responses is None) != (item.prompt is None):
            raise Problem("body_not_valid", "responses")
        if item.messages is not None:
            messages, response = last_turn(item.messages)
            return parser.comparison(prompt_of(messages, parser, item.tools), [response], item.images)
        assert item.prompt is not None
        return parser.comparison(
            prompt_of(item.prompt, parser, item.tools), item.responses or [], item.images
        )

    def write(self, body: RewardsRequest, response: ScoringResponse) -> RewardsResponse:
        """Write rewards and problems, item by item."""
        data = []
        for index, (item, result) in enumerate(zip(body.items, response.results, strict=True)):
            if isinstance(result, Problem):
                data.append(ItemRewards(index, item.id, None, error_of(result), 0))
                continue
            rewards = result.rewards
            data.append(
                ItemRewards(
                    index,
                    item.id,
                    rewards.values,
                    None,
                    result.num_tokens,
                    rewards.members or None,
                    rewards.disagreement or None,
                )
            )
        return RewardsResponse(
            response.id,
            response.created,
            response.engine.name,
            response.engine.model_digest,
            response.engine.template_digest,
            data,
            response.num_tokens,
            response.seconds,
        )
