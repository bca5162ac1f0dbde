"""`POST /reward`: what slime (2026-08) asks of `--rm-type remote_rm --rm-url URL`, one sample a request.

The whole body of the answer is the reward, or with `--reward-key NAME` an object that has it under that name;
the server is told the name in the URL, as `/reward?key=NAME`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect
from basereward.serving.apis.chat import ChatMessage, prompt_of
from basereward.serving.request_reader import Call, Reader


class RewardRequest(msgspec.Struct):
    """A prompt, rendered or plain or as messages, and a response.

    `images`, beyond what slime sends, are the prompt's images as base64 or `data:` URLs.
    """

    prompt: str | list[ChatMessage]
    response: str
    label: Any = None
    images: list[str] = []


class Slime(Dialect):
    """`POST /reward`."""

    paths = ("/reward",)
    summary = "slime: the reward of one response"
    request = RewardRequest
    responses = (float, dict[str, float])

    def read(self, body: RewardRequest, reader: Reader) -> Call:
        """Read the sample."""
        return Call(reader.each([body], lambda body: self._comparison(body, reader), "samples"))

    def _comparison(self, body: RewardRequest, reader: Reader) -> Comparison:
        if isinstance(body.prompt, str):
            return reader.of_turns(rendered_chat.continued(body.prompt, body.response), body.images)
        response = rendered_chat.without_end(body.response)
        return reader.comparison(prompt_of(body.prompt, reader), [response], body.images)

    def write(self, body: RewardRequest, answer: Answer) -> Any:
        """Write the reward alone, or under the name that was asked for."""
        [reward] = answer.rewards
        key = answer.query.get("key")
        return {key: reward} if key else reward
