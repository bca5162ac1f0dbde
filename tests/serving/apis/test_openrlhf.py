"""Requests of OpenRLHF's remote reward client, and its use of the responses."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import torch
from rounding import TINY_REWARD
from served import Client, chatml

from basereward import Comparison, RewardModel
from basereward.media import Image

PROMPT = chatml(("system", "be brief"), ("user", "what is it?"), asks=True)
IMAGE = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"


def test_a_sample_is_scored_as_its_prompt_and_response(echo: Client) -> None:
    body = {"query": [f"{PROMPT}a cat<|im_end|>\n"], "prompts": [PROMPT], "labels": ["cat"]}
    reply = echo.post("/get_reward", body)
    assert reply.status == 200
    assert reply.json == {"rewards": [5.0], "scores": [5.0], "extra_logs": {"reward": [5.0]}}


def test_the_client_makes_tensors_of_all_it_reads(echo: Client) -> None:
    body = {"query": [f"{PROMPT}a cat", f"{PROMPT}a dog runs"], "prompts": [PROMPT] * 2, "labels": [1, None]}
    answer = echo.post("/get_reward", body).json
    for values in (answer["rewards"], answer["scores"], *answer["extra_logs"].values()):
        assert torch.tensor(values).tolist() == [5.0, 10.0]


def test_the_second_of_several_servers_gets_and_gives_empty_lists(echo: Client) -> None:
    reply = echo.post("/get_reward", {"query": [], "prompts": [], "labels": []})
    assert reply.status == 200
    assert reply.json == {"rewards": [], "scores": [], "extra_logs": {"reward": []}}


def test_turns_are_the_message_they_were(vision: Client, vision_model: Path) -> None:
    model = RewardModel.load(vision_model)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is it?"}]
    [offline] = model.score([Comparison(messages, ["a cat"])])
    body = {"query": [f"{PROMPT}a cat<|im_end|>"], "prompts": [PROMPT], "labels": [None]}
    assert vision.post("/get_reward", body).json["rewards"] == pytest.approx(offline, abs=TINY_REWARD)


def test_a_prompt_without_a_template_is_the_users(vision: Client, vision_model: Path) -> None:
    [offline] = RewardModel.load(vision_model).score([Comparison("what is it?", [" a cat"])])
    body = {"query": ["what is it? a cat"], "prompts": ["what is it?"], "labels": [None]}
    assert vision.post("/get_reward", body).json["rewards"] == pytest.approx(offline, abs=TINY_REWARD)


def test_a_prompt_of_an_unknown_template_is_refused_with_the_reason(echo: Client) -> None:
    prompt = "<s>[INST] what is it? [/INST]"
    reply = echo.post("/get_reward", {"query": [f"{prompt}a cat"], "prompts": [prompt], "labels": [None]})
    assert (reply.status, reply.code) == (422, "prompt_of_unknown_template")
    reply = echo.post("/reward", {"prompt": prompt, "response": "a cat", "label": None})
    assert (reply.status, reply.code) == (422, "prompt_of_unknown_template")


def test_without_the_prompt_a_conversation_of_one_answer_is_taken_apart(echo: Client) -> None:
    whole = chatml(("user", "what is it?"), ("assistant", "a cat"))
    assert echo.post("/get_reward", {"query": [whole]}).json["rewards"] == [5.0]


def test_images_beside_the_texts_take_the_places_of_their_tokens(
    vision: Client, vision_model: Path, image: str
) -> None:
    prompt = chatml(("user", f"{IMAGE}what is it?"), asks=True)
    body = {"query": [f"{prompt}a cat"], "prompts": [prompt], "labels": [None], "images": [[image]]}
    comparison = Comparison("<image>what is it?", ["a cat"], images=[Image(base64.b64decode(image))])
    [offline] = RewardModel.load(vision_model).score([comparison])
    assert vision.post("/get_reward", body).json["rewards"] == pytest.approx(offline, abs=TINY_REWARD)


def test_lists_of_different_lengths_are_refused(echo: Client) -> None:
    reply = echo.post("/get_reward", {"query": ["a", "b"], "prompts": ["a"], "labels": []})
    assert (reply.status, reply.code) == (422, "body_not_valid")
