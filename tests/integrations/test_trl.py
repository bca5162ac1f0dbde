"""Reward functions called as TRL's trainers call them, and by TRL's GRPOTrainer where it is installed."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
from rounding import TINY_REWARD

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.integrations.reward_source import reward_source
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import clipped, hybrid
from basereward.integrations.trl import async_reward_func, reward_func, rule_reward


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def columns(prompts: Sequence[Any], completions: Sequence[Any], **more: Any) -> dict[str, Any]:
    """Return what TRL calls a reward function with."""
    ids = [[0] * number for number, _ in enumerate(completions)]
    return {
        "prompts": prompts,
        "completions": completions,
        "completion_ids": ids,
        "trainer_state": None,
        "log_extra": None,
        **more,
    }


def lengths(comparison: Comparison) -> list[float]:
    return [float(len(response)) for response in comparison.responses]


class Lengths:
    """Gives each response its number of characters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Comparison] = []

    def __call__(self, comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        self.asked += comparisons
        return [
            DataError("can't be read")
            if "bad" in each.prompt[0].text
            else [float(len(t)) for t in each.responses]
            for each in comparisons
        ]


@pytest.fixture(scope="module")
def model_dir(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "model"
    RewardModel.build(backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})).save(
        directory
    )
    return directory


def test_the_completions_of_a_prompt_are_one_comparison() -> None:
    source = Lengths()
    prompts = [asked("one"), asked("one"), asked("two"), asked("two")]
    rewards = reward_func(source)(**columns(prompts, [said("a"), said("bb"), said("ccc"), said("d")]))
    assert rewards == [1.0, 2.0, 3.0, 1.0]
    assert [(each.prompt[0].text, each.responses) for each in source.asked] == [
        ("one", ("a", "bb")),
        ("two", ("ccc", "d")),
    ]


def test_plain_texts_are_taken_too() -> None:
    assert reward_func(Lengths())(**columns(["one", "one"], ["a", "bb"])) == [1.0, 2.0]


def test_what_can_not_be_scored_touches_no_other_and_is_counted() -> None:
    logged: dict[str, float] = {}
    given = columns(["one", "one", "bad", "bad"], ["a", " ", "b", "c"], log_metric=logged.__setitem__)
    assert reward_func(Lengths(), name="mine")(**given) == [1.0, None, None, None]
    assert logged == {"mine/unscored": 0.75, "mine/raw": 1.0}


def test_nothing_that_can_be_scored_is_an_error() -> None:
    with pytest.raises(DataError, match="^can't be read$"):
        reward_func(Lengths())(**columns(["bad"], ["a"]))


def test_turns_of_tools_belong_to_the_prompt() -> None:
    source = Lengths()
    turns = [{"role": "assistant", "content": "2 + 2?"}, {"role": "tool", "content": "4"}, *said("four")]
    assert reward_func(source)(**columns([asked("sum")], [turns])) == [4.0]
    assert [message.text for message in source.asked[0].prompt] == ["sum", "2 + 2?", "4"]


def test_shapes_see_columns_lengths_and_groups() -> None:
    func = reward_func(Lengths(), shapes=[hybrid(exact_match, otherwise=clipped(0.0, 0.5))])
    assert func(**columns(["one", "one"], ["yes", "no"], answer=["yes", "yes"])) == [1.0, 0.5]


def test_the_reward_model_may_see_another_prompt_than_the_policy() -> None:
    source = Lengths()
    func = reward_func(source, prompt_column="judged")
    func(**columns(["answer in tags: one"], ["a"], judged=["one"]))
    assert source.asked[0].prompt[0].text == "one"
    with pytest.raises(ConfigError, match="^the data set has no column 'judged'; columns: "):
        func(**columns(["one"], ["a"]))


@pytest.mark.parametrize(
    "more",
    [{"images": [[tiny.image(56, 56, 1)]] * 2}, {"image": [tiny.image(56, 56, 1)] * 2}, None],
    ids=["images", "image", "parts"],
)
def test_images_reach_the_model_and_rewards_are_those_of_score(
    model_dir: Path, more: dict[str, Any] | None
) -> None:
    image = tiny.image(56, 56, 1)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "the cat"}]
    prompt = [{"role": "user", "content": "the cat" if more else parts}]
    found = reward_func(model_dir)(**columns([prompt] * 2, [said("sits"), said("runs")], **(more or {})))
    [expected] = RewardModel.load(model_dir).score([Comparison("the cat", ["sits", "runs"], images=[image])])
    assert found == pytest.approx(expected, abs=TINY_REWARD)


def test_an_asynchronous_function_is_one_and_gives_the_same() -> None:
    func = async_reward_func(Lengths())
    assert inspect.iscoroutinefunction(func)
    assert asyncio.run(func(**columns(["one", "one"], ["a", "bb"]))) == [1.0, 2.0]


def test_a_rule_is_a_reward_function() -> None:
    func = rule_reward(exact_match)
    assert func.__name__ == "exact_match"
    assert func(**columns(["one", "one"], [said("yes"), said("no")], answer=["yes", "yes"])) == [1.0, 0.0]


class Recorder(BaseHTTPRequestHandler):
    """Answers with the next of the server's answers, and remembers the request."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.seen.append((self.path, dict(self.headers), json.loads(self.rfile.read(length))))  # type: ignore[attr-defined]
        status, headers, body = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Any]:
    served: Any = HTTPServer(("127.0.0.1", 0), Recorder)
    served.seen, served.answers = [], []
    served.address = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


REWARDS = {"data": [{"index": 0, "rewards": [1.5, -0.5], "error": None}]}


def test_a_server_is_sent_images_inline_and_asked_again_while_it_is_busy(server: Any) -> None:
    server.answers += [(503, {"Retry-After": "0"}, {}), (429, {"Retry-After": "0"}, {}), (200, {}, REWARDS)]
    prompt = [
        {
            "role": "user",
            "content": [{"type": "image", "image": tiny.image()}, {"type": "text", "text": "x"}],
        }
    ]
    func = reward_func(server.address + "/", key="secret", served_name="m")
    assert func(**columns([prompt] * 2, [said("a"), said("b")])) == [1.5, -0.5]
    path, headers, body = server.seen[-1]
    assert (path, headers["Authorization"], len(server.seen)) == ("/v1/rewards", "Bearer secret", 3)
    [item] = body.pop("items")
    assert body == {"model": "m", "on_error": "null"}
    assert item["responses"] == ["a", "b"]
    [image, text] = item["prompt"][0]["content"]
    assert (image["type"], image["image"][:8], text) == (
        "image",
        "iVBORw0K",
        {"type": "text", "text": "x"},
    )


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("3", 3.0), ("1000000", 60.0), ("1e99", 1.0), ("nan", 1.0), ("-1", 1.0), ("Wed, 21 Oct 2026", 1.0)],
)
def test_a_busy_server_is_waited_for_a_minute_at_most(
    asked: str, waited: float, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("basereward.client.time.sleep", pauses.append)
    server.answers += [(503, {"Retry-After": asked}, {}), (200, {}, REWARDS)]
    assert reward_source(server.address)([Comparison("one", ["a", "b"])]) == [[1.5, -0.5]]
    assert pauses == [waited]


def test_no_redirect_takes_the_key_along(server: Any) -> None:
    server.answers += [(302, {"Location": f"{server.address}/elsewhere"}, {}), (200, {}, REWARDS)]
    with pytest.raises(ConfigError, match="answers 302"):
        reward_source(server.address, key="secret")([Comparison("one", ["a"])])
    assert len(server.seen) == 1


def test_an_item_that_a_server_can_not_score_is_an_error_of_its_own(server: Any) -> None:
    error = {"code": "too_many_tokens", "message": "more tokens than allowed", "param": "items[0]"}
    server.answers.append((200, {}, {"data": [{"index": 0, "rewards": None, "error": error}]}))
    [found] = reward_source(server.address)([Comparison("one", ["a"])])
    assert isinstance(found, DataError)
    assert str(found) == "items[0]: more tokens than allowed"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"data": None},
        {"data": []},
        {"data": [{"index": 0}]},
        {"data": [{"index": 0, "rewards": ["x", 1.0], "error": None}]},
        {"data": [{"index": 0, "rewards": [1.0], "error": None}]},
        {"data": [{"index": 0, "rewards": [1.0, float("nan")], "error": None}]},
        {"data": [{"index": 0, "rewards": None, "error": "x"}]},
        {"data": [*REWARDS["data"], *REWARDS["data"]]},
    ],
)
def test_an_answer_that_holds_no_rewards_of_the_comparisons_is_refused(server: Any, answer: Any) -> None:
    server.answers.append((200, {}, answer))
    with pytest.raises(
        ConfigError, match=f"^{server.address}/v1/rewards answers what are no rewards of ours"
    ):
        reward_source(server.address)([Comparison("one", ["a", "b"])])


def test_an_answer_without_end_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("basereward.client.MAX_ANSWER_BYTES", 1000)
    server.answers.append((200, {}, "x" * 1000))
    with pytest.raises(ConfigError, match="answers more than 1,000 bytes"):
        reward_source(server.address)([Comparison("one", ["a", "b"])])


def test_a_refusal_is_told_at_once(server: Any) -> None:
    server.answers.append((401, {}, {"error": {"message": "send a key"}}))
    with pytest.raises(ConfigError) as caught:
        reward_source(server.address)([Comparison("one", ["a"])])
    assert str(caught.value) == f"{server.address}/v1/rewards answers 401: send a key"


def test_our_own_server_gives_the_rewards_of_the_directory(model_dir: Path) -> None:
    pytest.importorskip("starlette")
    from served import running

    from basereward.serving.app import Server
    from basereward.serving.engine import ModelEngine

    parts = [{"type": "image", "image": tiny.image(56, 56, 1)}, {"type": "text", "text": "the cat"}]
    given = columns([[{"role": "user", "content": parts}]] * 3, [said("sits"), said(""), said("runs")])
    with running(Server([ModelEngine("m", RewardModel.load(model_dir))])) as client:
        served = reward_func(f"http://127.0.0.1:{client.port}")(**given)
    local = reward_func(model_dir)(**given)
    assert served[1] is local[1] is None
    assert [served[0], served[2]] == pytest.approx([local[0], local[2]], abs=TINY_REWARD)
