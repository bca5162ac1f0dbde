"""Requests and responses of vLLM's and SGLang's `/classify`, which verl's reward loop uses too."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from rounding import TINY_REWARD
from served import Client, chatml

from basereward import Comparison, RewardModel
from basereward.media import Image

WHOLE = chatml(("user", "what is it?"), ("assistant", "a cat"))


@pytest.mark.parametrize("spelling", ["use_activation", "activation"])
def test_verl_reads_the_last_probability_of_the_last_item(spelling: str, echo: Client) -> None:
    reply = echo.post("/classify", {"model": "echo", "input": WHOLE, spelling: False})
    assert reply.status == 200
    assert reply.json["data"][-1]["probs"][-1] == 5.0


def test_the_answer_has_vllms_shape(echo: Client) -> None:
    longer = chatml(("user", "what is it?"), ("assistant", "a dog runs"))
    answer = echo.post("/classify", {"model": "echo", "input": [WHOLE, longer]}).json
    assert answer["object"] == "list"
    assert answer["model"] == "echo"
    assert answer["data"] == [
        {"index": 0, "label": "LABEL_0", "probs": [5.0], "num_classes": 1},
        {"index": 1, "label": "LABEL_0", "probs": [10.0], "num_classes": 1},
    ]
    # 11 + 5 characters, and 11 + 10
    assert answer["usage"] == {"prompt_tokens": 37, "total_tokens": 37, "completion_tokens": 0}
    assert isinstance(answer["created"], int)


def test_messages_are_one_conversation_with_its_images(
    vision: Client, vision_model: Path, image: str
) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": "what is it?"},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a cat"}]
    [answer] = vision.post("/classify", {"messages": messages}).json["data"]
    comparison = Comparison("what is it?", ["a cat"], images=[Image(base64.b64decode(image))])
    [offline] = RewardModel.load(vision_model).score([comparison])
    assert answer["probs"] == pytest.approx(offline, abs=TINY_REWARD)


def test_an_earlier_answer_of_the_assistant_may_stand_in_messages(echo: Client) -> None:
    roles = ["user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": f"turn {number}"} for number, role in enumerate(roles)]
    assert echo.post("/classify", {"messages": messages}).json["data"][0]["probs"] == [6.0]


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"input": [[1, 2, 3]]}, "token_ids_not_allowed", "input"),
        ({"input": [1, 2, 3]}, "token_ids_not_allowed", "input"),
        ({"input_ids": [1, 2, 3]}, "token_ids_not_allowed", "input_ids"),
        ({"input": "no conversation"}, "response_not_separable", "input[0]"),
        ({"input": WHOLE, "messages": []}, "body_not_valid", None),
        ({"messages": [{"role": "user", "content": "x"}]}, "response_missing", "messages[0].messages"),
        ({"input": WHOLE, "chat_template": "{{ x }}"}, "argument_not_allowed", "chat_template"),
        ({"input": WHOLE, "chat_template_kwargs": {}}, "argument_not_allowed", "chat_template_kwargs"),
        ({"input": WHOLE, "mm_processor_kwargs": {"a": 1}}, "argument_not_allowed", "mm_processor_kwargs"),
        ({"input": WHOLE, "media_io_kwargs": {"a": 1}}, "argument_not_allowed", "media_io_kwargs"),
        ({"input": WHOLE, "add_generation_prompt": True}, "argument_not_allowed", "add_generation_prompt"),
    ],
)
def test_what_would_change_the_reading_is_refused(
    more: dict[str, object], code: str, param: str | None, echo: Client
) -> None:
    reply = echo.post("/classify", more)
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (422, code, param)


def test_errors_have_vllms_shape(echo: Client) -> None:
    reply = echo.post("/classify", {"model": "another", "input": WHOLE})
    assert reply.status == 404
    assert reply.json["error"] == {
        "code": "model_not_found",
        "message": "no such model; GET /v1/models lists all",
        "type": "invalid_request_error",
        "param": "model",
    }


class TestSGLang:
    def test_one_text_is_one_embedding(self, echo: Client) -> None:
        answer = echo.post("/classify", {"text": WHOLE}).json
        assert answer["embedding"] == [5.0]
        assert answer["meta_info"]["prompt_tokens"] == 16

    def test_several_texts_are_a_list(self, echo: Client) -> None:
        answer = echo.post("/classify", {"text": [WHOLE, WHOLE]}).json
        assert [own["embedding"] for own in answer] == [[5.0], [5.0]]

    @pytest.mark.parametrize("batch", [False, True])
    def test_images_take_the_places_of_their_tokens(
        self, batch: bool, vision: Client, vision_model: Path, image: str
    ) -> None:
        text = chatml(
            ("user", "<|vision_start|><|image_pad|><|vision_end|>what is it?"), ("assistant", "a cat")
        )
        body = {"text": [text] if batch else text, "image_data": [[image]] if batch else image}
        answer = vision.post("/classify", body).json
        comparison = Comparison("<image>what is it?", ["a cat"], images=[Image(base64.b64decode(image))])
        [offline] = RewardModel.load(vision_model).score([comparison])
        assert (answer[0] if batch else answer)["embedding"] == pytest.approx(offline, abs=TINY_REWARD)

    def test_images_for_other_texts_than_there_are_are_refused(self, echo: Client, image: str) -> None:
        reply = echo.post("/classify", {"text": [WHOLE], "image_data": [[image], [image]]})
        assert (reply.status, reply.code) == (422, "body_not_valid")
