"""Typed questions, as `/v1/systemone` (vLLM, transformers) and `/v1/decisions` (OpenAI, SGLang) have them."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import pytest
from served import Client, Echo

from basereward import Comparison
from basereward.media import Image
from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine
from basereward.stats.calibration import Calibration

RESPONSES = {"first": "A cat on a mat.", "second": "A dog."}
CHOICE = {"type": "choice", "criteria": RESPONSES}


def softmax(rewards: list[float], temperature: float) -> list[float]:
    weights = [math.exp((reward - max(rewards)) / temperature) for reward in rewards]
    return [weight / sum(weights) for weight in weights]


def ask(
    client: Client, question: dict[str, Any], state: Any = "What is shown?", **more: Any
) -> dict[str, Any]:
    """Return the answer of `/v1/systemone` to one question."""
    reply = client.post("/v1/systemone", {"state": state, "questions": {"q": question}, **more})
    assert reply.status == 200, reply.text
    answer: dict[str, Any] = reply.json["answers"]["q"]
    return answer


def decide(client: Client, question: dict[str, Any], given: Any = "What is shown?") -> dict[str, Any]:
    """Return the answer of `/v1/decisions` to one question."""
    reply = client.post("/v1/decisions", {"model": "echo", "input": given, "questions": [question]})
    assert reply.status == 200, reply.text
    answer: dict[str, Any] = reply.json["answers"][0]
    return answer


@pytest.mark.parametrize("temperature", [None, 0.3, 7.0])
def test_a_choice_is_the_softmax_of_the_models_rewards_over_its_temperature(
    temperature: float | None,
    vision_engine: ModelEngine,
    image: str,
    serve: Callable[[Server], Client],
) -> None:
    engine = ModelEngine("sees", vision_engine.model, "", Calibration(temperature))
    client = serve(Server([engine]))
    shown = Comparison("What is shown?", list(RESPONSES.values()), images=[Image(base64.b64decode(image))])
    [rewards] = vision_engine.model.score([shown])
    expected = softmax(rewards, temperature or 1.0)
    answer = ask(client, CHOICE, images=[image])
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert answer["choice"] == max(answer["probabilities"], key=answer["probabilities"].get)
    parts = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "auto"},
        {"type": "input_text", "text": "What is shown?"},
    ]
    question = {
        "type": "choice",
        "name": "q",
        "instructions": "Which response is better?",
        "choices": [{"value": name, "description": text} for name, text in RESPONSES.items()],
    }
    body = {"model": "sees", "input": [{"role": "user", "content": parts}], "questions": [question]}
    decided = client.post("/v1/decisions", body).json["answers"][0]
    assert [entry["probability"] for entry in decided["probabilities"]] == pytest.approx(expected, abs=1e-6)
    assert [entry["value"] for entry in decided["probabilities"]] == list(RESPONSES)
    assert (decided["name"], decided["confidence"]) == (
        "q",
        max(e["probability"] for e in decided["probabilities"]),
    )


# The rewards of `echo` are numbers of characters, its temperature is 2 and its mean reward 1.


def test_a_name_without_a_text_is_the_response(echo: Client) -> None:
    answer = ask(
        echo, {"type": "choice", "criteria": {"abcd": None, "ab": None}, "instructions": "Which is it?"}
    )
    # (4 - 2) / 2 = 1
    assert answer["probabilities"]["abcd"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert answer["confidence"] == answer["probabilities"]["abcd"]


def test_an_option_without_a_text_stays_where_absent_fields_are_left_out(echo: Client) -> None:
    question = {"type": "choice", "criteria": {"abcd": None, "ab": "text"}}
    assert set(ask(echo, question, system=None)["probabilities"]) == {"abcd", "ab"}


def test_instructions_are_the_last_words_of_the_prompt(serve: Callable[[Server], Client]) -> None:
    engine = Echo(shares_prefix=True)
    seen: list[Any] = []
    prepare = engine.prepare

    def recorded(comparison: Comparison) -> Any:
        seen.append([(turn.role, turn.text) for turn in comparison.prompt])
        return prepare(comparison)

    engine.prepare = recorded  # type: ignore[method-assign]
    client = serve(Server([engine]))
    ask(client, {**CHOICE, "instructions": "Which response is better?"})
    ask(client, {**CHOICE, "instructions": {"which": "tone"}}, instructions="Be strict.")
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    ask(client, {"type": "noul", "instructions": "Is it rude?"}, state={"messages": chat})
    ask(client, CHOICE, state={"role": "user"})
    decide(
        client,
        {"type": "predicate", "instructions": "It is rude."},
        given=[{"role": "developer", "content": "x"}],
    )
    assert seen == [
        [("user", "What is shown?")],
        [("system", "Be strict."), ("user", 'What is shown?\n\n{"which": "tone"}')],
        [("user", "Hi"), ("assistant", "Ho"), ("user", "Is it rude?")],
        [("user", '{"role": "user"}')],
        [("system", "x"), ("user", "It is rude.")],
    ]


def test_yes_and_no_are_two_responses_and_can_be_written_out(echo: Client) -> None:
    # "Yes" and "No" have 3 and 2 characters; 1 / 2 over the temperature.
    half = 1 / (1 + math.exp(-0.5))
    assert ask(echo, {"type": "noul", "instructions": "Is it a cat?"}) == {
        "type": "noul",
        "noul": pytest.approx(half),
    }
    predicate = {"type": "predicate", "instructions": "It is a cat."}
    assert decide(echo, predicate) == {"type": "predicate", "name": None, "probability": pytest.approx(half)}
    written = {"type": "noul", "instructions": "Is it?", "criteria": {"true": "yes!", "false": "nay!"}}
    assert ask(echo, written)["noul"] == 0.5


def test_the_last_turn_is_good_as_far_as_its_reward_is_above_the_mean(echo: Client) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho!"}]
    # (3 - 1) / 2 = 1
    good = pytest.approx(1 / (1 + math.exp(-1)))
    assert ask(echo, {"type": "noul", "instructions": "Is the response good?"}, state=chat)["noul"] == good
    assert ask(echo, {"type": "noul"}, state=chat)["noul"] == good
    predicate = {"type": "predicate", "instructions": "Is the response good?"}
    assert decide(echo, predicate, given=chat)["probability"] == good


def test_a_score_is_the_expected_level(echo: Client) -> None:
    levels = ["bad", "so", "good"]
    expected = softmax([3.0, 2.0, 4.0], 2.0)
    answer = ask(echo, {"type": "score", "instructions": "How good?", "criteria": levels})
    assert list(answer["probabilities"].values()) == pytest.approx(expected)
    assert answer["score"] == pytest.approx(expected[1] + 2 * expected[2])
    assert answer["legend"] == {"0": "bad", "1": "so", "2": "good"}
    question = {"type": "score", "instructions": "How good?", "levels": [{"label": text} for text in levels]}
    decided = decide(echo, question)
    assert decided["score"] == pytest.approx(answer["score"])
    assert [entry["label"] for entry in decided["probabilities"]] == levels


def test_options_may_be_booleans_beside_their_words(echo: Client) -> None:
    choices = [{"value": True, "description": "abcd"}, {"value": "true", "description": "ab"}]
    answer = decide(echo, {"type": "choice", "instructions": "Which?", "choices": choices})
    assert answer["choice"] is True
    assert [entry["value"] for entry in answer["probabilities"]] == [True, "true"]


def test_assets_stand_where_their_placeholders_are(vision: Client, image: str) -> None:
    asset = {"type": "image", "format": "png", "data_base64": image}
    listed = ask(vision, CHOICE, state="<image>What is shown?", images=[image])
    placed = ask(vision, CHOICE, state={"photo": "img-1"}, assets={"img-1": asset})
    plain = ask(vision, CHOICE, state="img-1What is shown?", assets={"img-1": asset})
    assert plain["probabilities"] == pytest.approx(listed["probabilities"], abs=1e-6)
    assert placed["probabilities"] != pytest.approx(listed["probabilities"], abs=1e-6)
    asked = {"type": "noul", "instructions": "Is img-1 a cat?"}
    assert 0 < ask(vision, asked, assets={"img-1": asset})["noul"] < 1


def test_every_question_has_its_answer_and_the_tokens_are_counted(echo: Client) -> None:
    questions = {"b": CHOICE, "a": {"type": "noul", "instructions": "Is it?"}}
    reply = echo.post("/v1/systemone", {"model": "echo", "state": "x", "questions": questions}).json
    assert list(reply["answers"]) == list(reply["diagnostics"]) == ["b", "a"]
    # The characters of prompts and options, as `echo` counts tokens: 1 + 15 + 6, and "x\n\nIs it?" + 3 + 2.
    assert reply["usage"] == {"input_tokens": 22 + 14, "output_tokens": 0}
    assert reply["model"] == "echo"


SYSTEMONE: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no question": ({"questions": {}}, "question_missing", "questions"),
    "no type": ({"questions": {"q": {"criteria": {}}}}, "body_not_valid", "questions[...].type"),
    "another type": ({"questions": {"q": {"type": "rank"}}}, "body_not_valid", "questions[...].type"),
    "no options": (
        {"questions": {"q": {"type": "choice", "criteria": {}}}},
        "too_few_options",
        "questions[0].criteria",
    ),
    "one level": (
        {"questions": {"q": {"type": "score", "criteria": ["x"], "instructions": "?"}}},
        "too_few_options",
        "questions[0].criteria",
    ),
    "options of another form": (
        {"questions": {"q": {"type": "choice", "criteria": ["a", "b"]}}},
        "body_not_valid",
        "questions[...].criteria",
    ),
    "nothing asked": (
        {"questions": {"q": CHOICE, "r": {"type": "noul"}}},
        "instructions_missing",
        "questions[1].instructions",
    ),
    "an empty option": (
        {"questions": {"q": {"type": "choice", "criteria": {"a": "", "b": "x"}}}},
        "response_empty",
        "questions[0].responses[0]",
    ),
    "no state": ({"state": ""}, "prompt_empty", "state"),
    "a role that is none": ({"state": [{"role": "judge", "content": "x"}]}, "role_unknown", "state"),
    "an address": ({"images": ["http://127.0.0.1/x.png"]}, "image_url_not_allowed", "state"),
    "an image that no text names": (
        {"assets": {"img": {"data_base64": "IMAGE"}}},
        "image_without_placeholder",
        "assets",
    ),
    "another model": ({"model": "other"}, "model_not_found", "model"),
    "a template": ({"decision_template": "x"}, "body_not_valid", None),
    "settings of a template": (
        {"chat_template_kwargs": {"a": 1}},
        "argument_not_allowed",
        "chat_template_kwargs",
    ),
    "poison": (
        {"questions": {"q": CHOICE, "r": {"type": "choice", "criteria": {"a": "poison", "b": "x"}}}},
        "no_score",
        "questions[1]",
    ),
}


@pytest.mark.parametrize("case", SYSTEMONE)
def test_what_is_wrong_with_a_question_is_told_by_its_field(case: str, echo: Client, image: str) -> None:
    changes, code, param = SYSTEMONE[case]
    if "assets" in changes:
        changes = {"assets": {"img": {"data_base64": image}}}
    reply = echo.post("/v1/systemone", {"state": "x", "questions": {"q": CHOICE}, **changes})
    assert 400 <= reply.status < 500
    assert (reply.code, reply.json["error"]["param"]) == (code, param)


DECISIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no question": ({"questions": []}, "question_missing", "questions"),
    "no instructions": (
        {"questions": [{"type": "predicate"}]},
        "body_not_valid",
        "questions[0].instructions",
    ),
    "the same option": (
        {"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": "a"}, {"value": "a"}]}]},
        "option_repeated",
        "questions[0].choices[1]",
    ),
    "one option": (
        {"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": "a"}]}]},
        "too_few_options",
        "questions[0].choices",
    ),
    "a call of a tool": (
        {"input": [{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"}]},
        "body_not_valid",
        "input[0].type",
    ),
    "two values": (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "data": {}}]}]},
        "body_not_valid",
        "input.data",
    ),
    "an address": (
        {
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.org/a.png"}]}
            ]
        },
        "image_url_not_allowed",
        "input",
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_what_is_wrong_with_a_decision_is_told_by_its_field(case: str, echo: Client) -> None:
    changes, code, param = DECISIONS[case]
    question = {"type": "predicate", "instructions": "It is a cat."}
    reply = echo.post("/v1/decisions", {"input": "x", "questions": [question], **changes})
    assert 400 <= reply.status < 500
    assert (reply.code, reply.json["error"]["param"]) == (code, param)


def test_a_model_whose_mean_reward_was_not_measured_calls_no_response_good(
    vision: Client,
) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    reply = vision.post("/v1/systemone", {"state": chat, "questions": {"q": {"type": "noul"}}})
    assert (reply.status, reply.code) == (422, "mean_reward_unknown")
    assert reply.json["error"]["param"] == "questions[0]"


def test_the_temperature_is_told(echo: Client, vision: Client) -> None:
    assert [model["temperature"] for model in echo.get("/v1/models").json["data"]] == [2.0]
    assert [model["temperature"] for model in vision.get("/v1/models").json["data"]] == [None]


def test_openais_client_reads_the_answers(echo: Client) -> None:
    openai = pytest.importorskip("openai")
    if not hasattr(openai.OpenAI, "decisions"):
        pytest.skip("needs openai 3.57")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{echo.port}/v1", api_key="none") as client:
        decision = client.decisions.create(
            model="echo", input="x", questions=[{"type": "predicate", "instructions": "Is it?"}]
        )
    assert decision.answers[0].probability == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert decision.usage.input_tokens == 14
