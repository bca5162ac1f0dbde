"""Requests and responses of vLLM's `/pooling` and SGLang's and OpenAI's `/v1/embeddings`."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from rounding import TINY_REWARD
from served import Client, chatml

from basereward import Comparison, RewardModel
from basereward.media import Image

WHOLE = chatml(("user", "what is it?"), ("assistant", "a cat"))


def test_a_pooled_reward_is_a_vector_of_one_number(echo: Client) -> None:
    answer = echo.post("/pooling", {"model": "echo", "input": [WHOLE]}).json
    assert answer["data"] == [{"index": 0, "object": "pooling", "data": [5.0]}]
    assert answer["object"] == "list"


def test_verl_reads_the_last_number_of_the_last_embedding(echo: Client) -> None:
    answer = echo.post("/v1/embeddings", {"model": "echo", "input": WHOLE}).json
    assert answer["data"][-1]["embedding"][-1] == 5.0
    assert answer["data"][0]["object"] == "embedding"
    assert answer["object"] == "list"


@pytest.mark.parametrize(("path", "name"), [("/pooling", "data"), ("/v1/embeddings", "embedding")])
def test_openais_client_asks_for_base64_of_float32(path: str, name: str, echo: Client) -> None:
    answer = echo.post(path, {"input": WHOLE, "encoding_format": "base64"}).json
    assert struct.unpack("<f", base64.b64decode(answer["data"][0][name])) == (5.0,)


def test_an_embedding_is_not_of_length_one(vision: Client, vision_model: Path) -> None:
    [offline] = RewardModel.load(vision_model).score([Comparison("what is it?", ["a cat"])])
    [own] = vision.post("/v1/embeddings", {"input": WHOLE}).json["data"]
    assert own["embedding"] == pytest.approx(offline, abs=TINY_REWARD)
    assert abs(own["embedding"][0]) != 1


def test_an_image_may_stand_beside_a_text(vision: Client, vision_model: Path, image: str) -> None:
    text = chatml(("user", "<|vision_start|><|image_pad|><|vision_end|>what?"), ("assistant", "a cat"))
    [own] = vision.post("/v1/embeddings", {"input": [{"text": text, "image": image}]}).json["data"]
    comparison = Comparison("<image>what?", ["a cat"], images=[Image(base64.b64decode(image))])
    [offline] = RewardModel.load(vision_model).score([comparison])
    assert own["embedding"] == pytest.approx(offline, abs=TINY_REWARD)


@pytest.mark.parametrize("path", ["/pooling", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"input": [1, 2]}, "token_ids_not_allowed"),
        ({"input": WHOLE, "dimensions": 1}, "argument_not_allowed"),
    ],
)
def test_token_ids_and_dimensions_are_refused(
    path: str, more: dict[str, object], code: str, echo: Client
) -> None:
    reply = echo.post(path, more)
    assert (reply.status, reply.code) == (422, code)
