"""Requests and responses of text-embeddings-inference's `/predict`."""

from __future__ import annotations

import math

import pytest
from served import Client, chatml

WHOLE = chatml(("user", "what is it?"), ("assistant", "a cat"))


@pytest.mark.parametrize("inputs", [WHOLE, ["what is it?", "a cat"], [WHOLE]])
def test_a_single_input_is_answered_with_one_list(inputs: object, echo: Client) -> None:
    answer = echo.post("/predict", {"inputs": inputs, "raw_scores": True}).json
    assert answer == [{"score": 5.0, "label": "LABEL_0"}]


def test_several_inputs_are_answered_with_a_list_of_lists(echo: Client) -> None:
    inputs = [["what?", "a cat"], ["what?", "a dog runs"], [WHOLE]]
    answer = echo.post("/predict", {"inputs": inputs, "raw_scores": True}).json
    assert answer == [[{"score": value, "label": "LABEL_0"}] for value in (5.0, 10.0, 5.0)]


def test_scores_are_sigmoids_unless_raw_ones_are_asked_for(echo: Client) -> None:
    [own] = echo.post("/predict", {"inputs": ["what?", "abc"]}).json
    assert own["score"] == pytest.approx(1 / (1 + math.exp(-3)))


@pytest.mark.parametrize("inputs", [[], [[]], [["a", "b", "c"]], ["a", ["b", "c"]], ["a", "b", "c"]])
def test_other_forms_are_refused_as_tei_does(inputs: object, echo: Client) -> None:
    reply = echo.post("/predict", {"inputs": inputs})
    assert reply.status == 422
    assert reply.json["error_type"] == "Validation"
    assert reply.json["error"] == "body_not_valid: the body doesn't follow the schema; see GET /openapi.json"
