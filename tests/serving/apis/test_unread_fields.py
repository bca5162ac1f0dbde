"""A field of a request is read, known to decide nothing, or refused; none is left out without a word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from served import Client, chatml

from basereward import Comparison
from basereward.serving.apis.base import REFUSED_FIELDS, ClientFields

WHOLE = chatml(("user", "what is it?"), ("assistant", "a cat"))
MESSAGES = [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "a cat"}]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "the cat"}}}

BODIES: dict[str, dict[str, Any]] = {
    "/get_reward": {"query": ["what is it?a cat"], "prompts": ["what is it?"]},
    "/classify": {"messages": MESSAGES},
    "/pooling": {"messages": MESSAGES},
    "/score": {"queries": "what is it?", "documents": "a cat"},
    "/rerank": {"query": "what is it?", "documents": ["a cat"]},
    "/v1/embeddings": {"input": WHOLE},
    "/predict": {"inputs": ["what is it?", "a cat"], "raw_scores": True},
    "/v1/score/evaluation": {"messages": [WHOLE]},
    "/reward": {"prompt": "what is it?", "response": "a cat"},
    "/v1/systemone": {
        "state": "what is it?",
        "questions": {"q": {"type": "choice", "criteria": {"a": "cat", "b": "dog"}}},
    },
    "/v1/decisions": {"input": "what is it?", "questions": [{"type": "predicate", "instructions": "a cat"}]},
    "/v1/rewards": {"items": [{"prompt": "what is it?", "responses": ["a cat"]}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_field_that_is_not_read_is_refused_by_name(path: str, echo: Client) -> None:
    for name, value in (("system", "Be brief."), ("audio", "UklGRg=="), ("min_pixels", 4), ("weight", 0)):
        reply = echo.post(path, {**BODIES[path], name: value})
        assert reply.status == 422
        assert name in reply.text


@pytest.mark.parametrize("path", BODIES)
def test_the_name_of_a_field_that_no_api_has_is_not_repeated(path: str, echo: Client) -> None:
    reply = echo.post(path, {**BODIES[path], "secret_of_the_client": 1})
    assert reply.status == 422
    assert "secret" not in reply.text


@pytest.mark.parametrize("path", BODIES)
def test_a_field_without_a_value_is_absent(path: str, echo: Client) -> None:
    expected = echo.post(path, BODIES[path])
    assert expected.status == 200
    assert echo.post(path, {**BODIES[path], "system": None, "anything": None}).status == 200


@pytest.mark.parametrize("path", sorted(BODIES.keys() - {"/v1/rewards"}))
def test_fields_of_clients_are_ignored_or_refused_alike_by_all_apis(path: str, echo: Client) -> None:
    ignored = {name: 1 for name in ClientFields.__struct_fields__}
    assert echo.post(path, {**BODIES[path], **ignored}).status == 200
    for name in REFUSED_FIELDS:
        reply = echo.post(path, {**BODIES[path], name: 1})
        assert (reply.status, name in reply.text) == (422, True)


def test_keys_of_messages_and_parts_are_refused_by_name(echo: Client) -> None:
    def code(message: dict[str, Any]) -> tuple[str, Any]:
        item = {"prompt": [{"role": "user", "content": "a", **message}], "responses": ["b"]}
        reply = echo.post("/v1/rewards", {"items": [item]})
        return reply.code, reply.json["error"]["param"]

    assert code({"images": ["x"]}) == ("body_not_valid", "items[0].prompt[0].images")
    assert code({"content": None}) == ("body_not_valid", "items[0].content")
    text = {"type": "text", "text": "a"}
    assert code({"content": [{**text, "image": "x"}]}) == ("body_not_valid", "items[0].image")
    assert code({"content": [{**text, "max_pixels": 4}]})[1] == "items[0].prompt[0].content[0].max_pixels"
    ignored = {**text, "cache_control": {"type": "ephemeral"}, "unknown": None}
    item = {"prompt": [{"role": "user", "content": [ignored]}], "responses": ["b"]}
    assert echo.rewards(item).status == 200


def test_a_field_that_is_missing_is_named(echo: Client) -> None:
    reply = echo.post("/v1/rewards", {"items": [{"prompt": "a"}]})
    assert (reply.code, reply.json["error"]["param"]) == ("body_not_valid", "items[0].responses")
    reply = echo.post("/v1/rewards", {})
    assert (reply.code, reply.json["error"]["param"]) == ("body_not_valid", "items")


def test_two_forms_in_one_body_are_refused(echo: Client) -> None:
    for path, fields in (
        ("/classify", {"image_data": "x"}),
        ("/classify", {"text": WHOLE}),
        ("/score", {"text_1": "what?"}),
        ("/v1/rewards", {"items": [{"messages": MESSAGES, "responses": ["b"]}]}),
    ):
        assert echo.post(path, {**BODIES[path], **fields}).code == "body_not_valid"


def test_calls_of_tools_reach_the_model_and_responses_have_none(echo: Client, vision: Client) -> None:
    called = [
        MESSAGES[0],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "it is small", "tool_call_id": "c1"},
        MESSAGES[1],
    ]
    for path, body in (
        ("/v1/rewards", {"items": [{"messages": called}]}),
        ("/classify", {"messages": called}),
    ):
        assert echo.post(path, body).status == 200
        # The chat template of this model reads no calls, so that the model would never see them.
        assert vision.post(path, body).code == "prompt_not_usable"
    tools = {"items": [{"messages": MESSAGES, "tools": [CALL]}]}
    assert echo.post("/v1/rewards", tools).status == 200
    assert vision.post("/v1/rewards", tools).code == "prompt_not_usable"
    answered = [MESSAGES[0], {**MESSAGES[1], "tool_calls": [CALL]}]
    reply = echo.post("/v1/rewards", {"items": [{"messages": answered}]})
    assert (reply.code, reply.json["error"]["param"]) == (
        "response_not_text",
        "items[0].messages[1].tool_calls",
    )


def test_the_prompt_that_is_scored_has_the_tools_and_the_calls() -> None:
    from basereward.serving.apis.native import Native, RewardsRequest
    from basereward.serving.limits import Limits
    from basereward.serving.request_parser import RequestParser

    prompt = [MESSAGES[0], {"role": "assistant", "content": None, "tool_calls": [CALL], "name": "cat"}]
    body = {"items": [{"prompt": prompt, "responses": ["a"], "tools": [CALL]}]}
    request = Native().parse(msgspec.convert(body, RewardsRequest), RequestParser(Limits()))
    [comparison] = request.items
    assert isinstance(comparison, Comparison)
    assert comparison.prompt == Comparison(prompt, ["a"], tools=[CALL]).prompt
