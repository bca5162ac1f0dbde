"""Requests and responses of LLaMA-Factory's PPO with `reward_model_type: api`."""

from __future__ import annotations

from served import Client, chatml


def test_scores_come_in_the_order_of_the_texts(echo: Client) -> None:
    texts = [chatml(("user", "what?"), ("assistant", text)) for text in ("a dog runs", "a cat")]
    reply = echo.post("/v1/score/evaluation", {"model": "model", "messages": texts})
    assert reply.status == 200
    assert reply.json["scores"] == [10.0, 5.0]
    assert reply.json["object"] == "score.evaluation"
    assert reply.json["model"] == "echo"


def test_what_fills_a_batchs_rows_is_no_response(echo: Client) -> None:
    """The client decodes ids with special tokens kept, padding among them."""
    text = "<|endoftext|>" * 3 + chatml(("user", "what?"), ("assistant", "a cat")) + "<|endoftext|>" * 4
    assert echo.post("/v1/score/evaluation", {"model": "m", "messages": [text]}).json["scores"] == [5.0]


def test_llamas_and_gemmas_templates_are_known(echo: Client) -> None:
    llama = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nwhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\na cat<|eot_id|>"
    )
    gemma = "<bos><start_of_turn>user\nwhat?<end_of_turn>\n<start_of_turn>model\na dog runs<end_of_turn>\n"
    reply = echo.post("/v1/score/evaluation", {"model": "m", "messages": [llama, gemma]})
    assert reply.json["scores"] == [5.0, 10.0]
