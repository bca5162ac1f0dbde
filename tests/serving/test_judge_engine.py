"""A judge that asks somebody else's server is served as a model is."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from judge_server import Fault, JudgeServer, serving
from served import Client

from basereward.errors import ConfigError
from basereward.serving.app import Server
from basereward.serving.engine import JudgeEngine, load_engine
from basereward.writers import http_sender

pytest.importorskip("httpx2")

ITEM = {"prompt": "what?", "responses": ["two words", "one"]}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sender, "FIRST_WAIT", 0.002)


def test_rewards_and_decisions_are_the_judges(serve: Callable[[Server], Client], tmp_path: Path) -> None:
    with serving(JudgeServer()) as words:
        path = tmp_path / "judge.toml"
        path.write_text(
            f'reward_temperature = 0.5\n[writer]\nname = "endpoint"\nurls = ["{words.url}"]\nmax_tries = 1\n'
        )
        client = serve(Server([load_engine("judge", path)]))
        # One word more, in both orders: the sigmoid of 1.
        share = 1 / (1 + math.exp(-1))
        answer = client.rewards(ITEM, ITEM).json
        assert [entry["rewards"] for entry in answer["data"]] == [
            [pytest.approx(share), pytest.approx(1 - share)]
        ] * 2
        criteria = {"a": "two words", "b": "one"}
        body = {"state": "what?", "questions": {"q": {"type": "choice", "criteria": criteria}}}
        shares = client.post("/v1/systemone", body).json["answers"]["q"]["probabilities"]
        # The softmax of two rewards over 0.5 is the sigmoid of their difference over it.
        assert shares["a"] == pytest.approx(1 / (1 + math.exp(-(2 * share - 1) / 0.5)))
        assert client.get("/v1/models").json["data"][0]["temperature"] == 0.5
        single = client.rewards({**ITEM, "responses": ["one"]})
        assert (single.status, single.code) == (422, "response_not_usable")


def test_a_question_without_an_answer_is_a_problem_and_leaves_the_others_alone(
    serve: Callable[[Server], Client], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(number: int, body: dict[str, object]) -> Fault | None:
        return Fault(400, b"{}") if "broken" in json.dumps(body) else None

    with serving(JudgeServer(faults=fails)) as words, caplog.at_level(logging.WARNING):
        client = serve(Server([load_engine("judge", f"judge+{words.url}")]))
        broken = {**ITEM, "prompt": "broken?"}
        reply = client.rewards(broken)
        assert (reply.status, reply.code) == (502, "no_verdict")
        both = client.rewards(broken, ITEM, on_error="null").json["data"]
        assert both[0]["error"]["code"] == "no_verdict"
        assert both[1]["rewards"][0] > 0.5
    assert "has not answered 2 of 2 questions" in caplog.text
    assert "broken" not in caplog.text


def test_a_judge_without_rewards_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "critic.toml"
    path.write_text('template = "critique"\n[writer]\nname = "endpoint"\nurls = ["http://127.0.0.1:1"]\n')
    with pytest.raises(ConfigError, match="asks for critiques, of which a critic makes rewards"):
        load_engine("critic", path)


def test_engines_of_judges_differ_by_their_settings(tmp_path: Path) -> None:
    engines = [load_engine("a", f"judge+http://127.0.0.1:1/v{number}") for number in (1, 1, 2)]
    assert all(isinstance(engine, JudgeEngine) for engine in engines)
    first, same, other = (engine.model_digest for engine in engines)
    assert first == same != other
