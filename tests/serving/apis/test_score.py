"""Requests and responses of vLLM's `/score`."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from rounding import TINY_REWARD
from served import Client

from basereward import Comparison, RewardModel
from basereward.media import Image


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
def test_one_query_is_scored_with_each_document(path: str, names: tuple[str, str], echo: Client) -> None:
    answer = echo.post(path, {"model": "echo", names[0]: "what?", names[1]: ["a cat", "a dog runs"]}).json
    assert answer["data"] == [
        {"index": 0, "object": "score", "score": 5.0},
        {"index": 1, "object": "score", "score": 10.0},
    ]
    assert answer["object"] == "list"


def test_as_many_queries_as_documents_are_scored_in_pairs(echo: Client) -> None:
    answer = echo.post("/score", {"queries": ["a", "b"], "documents": ["one", "three"]}).json
    assert [own["score"] for own in answer["data"]] == [3.0, 5.0]


def test_a_query_may_have_images(vision: Client, vision_model: Path, image: str) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": "what?"},
    ]
    document = {"content": [{"type": "text", "text": "a cat"}]}
    answer = vision.post("/score", {"queries": {"content": parts}, "documents": [document, "a dog"]}).json
    comparison = Comparison("what?", ["a cat", "a dog"], images=[Image(base64.b64decode(image))])
    [offline] = RewardModel.load(vision_model).score([comparison])
    assert [own["score"] for own in answer["data"]] == pytest.approx(offline, abs=TINY_REWARD)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"queries": ["a", "b"], "documents": ["c"]}, "body_not_valid"),
        ({"queries": "a"}, "body_not_valid"),
        ({"queries": "a", "documents": "b", "text_1": "a", "text_2": "b"}, "body_not_valid"),
        ({"queries": "a", "documents": "b", "instruction": "x"}, "argument_not_allowed"),
        ({"queries": "a", "documents": []}, "response_missing"),
        (
            {"queries": "a", "documents": {"content": [{"type": "image_url", "image_url": "x"}]}},
            "response_with_image",
        ),
    ],
)
def test_other_forms_are_refused(body: dict[str, object], code: str, echo: Client) -> None:
    reply = echo.post("/score", body)
    assert (reply.status, reply.code) == (422, code)
