"""Requests of slime's `--rm-type remote_rm`, and its use of the responses."""

from __future__ import annotations

import pytest
from served import Client, chatml


@pytest.mark.parametrize(
    "prompt",
    ["what is it?", chatml(("user", "what is it?"), asks=True), [{"role": "user", "content": "what is it?"}]],
)
def test_the_whole_body_is_the_reward(prompt: object, echo: Client) -> None:
    reply = echo.post("/reward", {"prompt": prompt, "response": "a cat<|im_end|>", "label": {"any": 1}})
    assert reply.status == 200
    assert reply.json == 5.0


def test_a_reward_key_names_it(echo: Client) -> None:
    reply = echo.post("/reward?key=score", {"prompt": "what is it?", "response": "a cat", "label": None})
    assert reply.json == {"score": 5.0}


def test_what_a_template_begins_the_response_with_belongs_to_it(echo: Client) -> None:
    prompt = chatml(("user", "what?"), asks=True) + "<think>\n"
    reply = echo.post("/reward", {"prompt": prompt, "response": "hm</think>a cat", "label": None})
    assert reply.json == len("<think>\nhm</think>a cat")


def test_a_prompt_that_ends_within_another_turn_is_refused(echo: Client) -> None:
    reply = echo.post("/reward", {"prompt": "<|im_start|>user\nwhat?", "response": "a cat", "label": None})
    assert (reply.status, reply.code) == (422, "response_not_separable")
