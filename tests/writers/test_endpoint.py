"""A server's texts come in order, whatever it does wrong; a failure has a reason and is never a text."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from judge_server import Fault, JudgeServer, serving

from basereward.errors import ConfigError
from basereward.media.image import Image
from basereward.message import Message
from basereward.writers import http_sender
from basereward.writers.endpoint import Endpoint
from basereward.writers.request import Completion, Request

pytest.importorskip("httpx2")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sender, "FIRST_WAIT", 0.002)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(JudgeServer()) as running:
        yield running


def asked(number: int = 0, *, has_image: bool = False, **settings: Any) -> Request:
    """Return a question whose right answer is 1 for an even number, 2 for an odd one."""
    first, second = ("two words", "one") if number % 2 == 0 else ("one", "two words")
    text = f"[Question]\n{number}\n\n[Response 1]\n{first}\n\n[Response 2]\n{second}\n\nWhich is better?"
    content = (Image(tiny.image(28, 28, number)), text) if has_image else (text,)
    return Request([Message("user", content)], max_tokens=16, **settings)


def texts(written: list[Completion]) -> list[str]:
    assert {each.ending for each in written} == {"finished"}
    return [each.text for each in written]


def test_texts_come_in_the_order_of_requests_whatever_the_order_of_answers(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(seconds=0.05 if number % 3 == 0 else 0.0)
    written = Endpoint(urls=(server.url,), in_flight=4).write([asked(number) for number in range(20)])
    assert texts(written) == ["1", "2"] * 10
    assert server.most_in_flight == 4
    assert [each.model for each in written] == ["words-1"] * 20
    assert all(each.num_prompt_tokens > 0 and each.num_tokens == 2 for each in written)


def test_the_requests_in_flight_are_bounded_over_all_threads(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(seconds=0.02)
    writer = Endpoint(urls=(server.url,), in_flight=3)
    with ThreadPoolExecutor(4) as threads:
        parts = [[asked(10 * part + number) for number in range(5)] for part in range(4)]
        written = list(threads.map(writer.write, parts))
    assert [texts(each) for each in written] == [["1", "2", "1", "2", "1"]] * 4
    assert server.most_in_flight == 3
    assert len(server.probes) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_status_that_passes_is_tried_again(server: JudgeServer, status: int) -> None:
    server.faults = lambda number, body: Fault(status, b"{}") if number == 0 else None
    writer = Endpoint(urls=(server.url,), in_flight=1)
    assert texts(writer.write([asked(0), asked(1)])) == ["1", "2"]
    assert len(server.asked) == 3
    assert writer.statistics["retries"] == 1


@pytest.mark.parametrize("status", [302, 400, 404, 413, 422])
def test_another_status_fails_its_request_alone_at_once(server: JudgeServer, status: int) -> None:
    body = json.dumps({"error": {"message": "maximum context length is 8 tokens"}}).encode()
    server.faults = lambda number, _: Fault(status, body) if number == 0 else None
    writer = Endpoint(urls=(server.url,), in_flight=1)
    first, second = writer.write([asked(0), asked(1)])
    reason = f"{server.url} answers {status}: 'maximum context length is 8 tokens'"
    assert first == Completion.failed(reason)
    assert second.text == "2"
    assert len(server.asked) == 2
    assert writer.statistics["failed"] == 1


def test_a_failure_that_stays_is_a_failure_with_its_tries(server: JudgeServer) -> None:
    server.faults = lambda number, _: Fault(503, b"overloaded")
    [written] = Endpoint(urls=(server.url,), max_tries=3).write([asked()])
    assert written == Completion.failed(f"{server.url} answers 503: 'overloaded' (3 tries)")
    assert len(server.asked) == 3


def test_a_dropped_connection_is_tried_again(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(cut=True) if number == 0 else None
    assert texts(Endpoint(urls=(server.url,)).write([asked()])) == ["1"]
    assert len(server.asked) == 2


def test_a_server_is_left_alone_for_as_long_as_it_asks(server: JudgeServer) -> None:
    times: list[float] = []

    def busy_once(number: int, body: dict[str, Any]) -> Fault | None:
        times.append(time.monotonic())
        return Fault(429, b"{}", {"Retry-After": "0.4"}) if number == 0 else None

    server.faults = busy_once
    assert texts(Endpoint(urls=(server.url,)).write([asked()])) == ["1"]
    assert times[1] - times[0] >= 0.4


def test_a_wait_past_the_deadline_is_a_failure_now(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(429, b"{}", {"Retry-After": "3600"})
    start = time.monotonic()
    [written] = Endpoint(urls=(server.url,), deadline_seconds=5).write([asked()])
    assert written.reason.endswith("(1 try)")
    assert time.monotonic() - start < 5


def test_a_server_that_never_answers_is_given_up(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(seconds=30.0)
    writer = Endpoint(
        urls=(server.url,), in_flight=2, timeout_seconds=0.1, deadline_seconds=0.4, max_tries=100
    )
    written = writer.write([asked(number) for number in range(8)])
    assert {each.ending for each in written} == {"failed"}
    assert written[0].reason.startswith(f"{server.url} has not answered within 0.")
    # Once nothing was answered for 0.4 s, the others aren't sent at all.
    assert written[-1].reason.startswith("was not sent: the server has answered nothing for ")
    assert len(server.asked) < 2 * 8


WRONG = {
    "no json": (Fault(body=b"<html>busy</html>"), "the answer is no JSON: '<html>busy</html>'"),
    "a list": (Fault(body=b"[]"), "the answer is no JSON object: []"),
    "no choices": (
        Fault(body=b'{"choices": []}'),
        "the answer has no choices with a message: {'choices': []}",
    ),
    "a number for text": (
        Fault(body=b'{"choices": [{"message": {"content": 1}, "finish_reason": "stop"}]}'),
        "the answer's content is no text: 1",
    ),
    "an error with status 200": (
        Fault(body=b'{"error": {"message": "out of memory"}}'),
        "the server says 'out of memory'",
    ),
    "no end": (
        Fault(body=b'{"choices": [{"message": {"content": "1"}, "finish_reason": null}]}'),
        "the server ended the text with finish_reason None",
    ),
    "a filter": (
        Fault(body=b'{"choices": [{"message": {"content": "1"}, "finish_reason": "content_filter"}]}'),
        "the server ended the text with finish_reason 'content_filter'",
    ),
    "deeply nested": (Fault(body=b"[" * 100_000), "the answer is no JSON: "),
    "another request's": (
        Fault(headers={"X-Request-Id": "basereward-0-0"}),
        "the answer is one to another request",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_is_none_fails_and_is_not_tried_again(server: JudgeServer, name: str) -> None:
    fault, reason = WRONG[name]
    server.faults = lambda number, body: fault if number == 0 else None
    first, second = Endpoint(urls=(server.url,), in_flight=1).write([asked(0), asked(1)])
    assert (first.text, first.ending) == ("", "failed")
    assert first.reason.startswith(reason)
    assert second.text == "2"
    assert len(server.asked) == 2


def test_a_text_that_was_cut_says_so_and_thoughts_are_part_of_the_turn(server: JudgeServer) -> None:
    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0] |= {
            "finish_reason": "length",
            "message": {"content": "<answer>", "reasoning_content": "I count."},
        }
        return answer

    server.faults = lambda number, body: Fault(change=cut)
    [written] = Endpoint(urls=(server.url,)).write([asked()])
    assert (written.ending, written.text) == ("cut", "<think>I count.</think><answer>")


def test_choices_have_the_probabilities_of_all_their_tokens(server: JudgeServer) -> None:
    [written] = Endpoint(urls=(server.url,)).write([asked(choices=("1", "2"))])
    # The margin is one word. Of "1" and " 1" together the share is 0.9 s(1), of the others 0.9 s(-1).
    share = 1 / (1 + math.exp(-1.0))
    expected = {"1": math.log(0.9 * share), "2": math.log(0.9 * (1 - share))}
    assert written.log_probabilities == pytest.approx(expected)
    assert server.asked[0]["max_tokens"] == 1


def test_a_choice_that_is_not_named_is_as_likely_as_the_last_that_is(server: JudgeServer) -> None:
    def only_first(answer: dict[str, Any]) -> dict[str, Any]:
        top = [{"token": "1", "logprob": -0.1}, {"token": "One", "logprob": -4.0}]
        answer["choices"][0]["logprobs"] = {"content": [{"token": "1", "top_logprobs": top}]}
        return answer

    def neither(answer: dict[str, Any]) -> dict[str, Any]:
        top = [{"token": "One", "logprob": -0.1}, {"token": "1", "logprob": None}]
        answer["choices"][0]["logprobs"] = {"content": [{"token": "One", "top_logprobs": top}]}
        return answer

    server.faults = lambda number, body: Fault(change=only_first if number == 0 else neither)
    named, unnamed = Endpoint(urls=(server.url,), in_flight=1).write(
        [asked(number, choices=("1", "2")) for number in range(2)]
    )
    assert named.log_probabilities == pytest.approx({"1": -0.1, "2": -4.0})
    assert unnamed.log_probabilities == {}


def test_a_server_that_ignores_logprobs_and_n_is_noticed(server: JudgeServer) -> None:
    server.gives_logprobs = server.heeds_n = False
    writer = Endpoint(urls=(server.url,))
    [written] = writer.write([asked(choices=("1", "2"))])
    assert (written.text, written.log_probabilities) == ("1", {})
    assert writer.facts["server"] == "logprobs no, n no, seed accepted, images yes"
    # It isn't asked for them again, and has room to write a text.
    assert "logprobs" not in server.asked[0]
    assert server.asked[0]["max_tokens"] == 16


def test_a_server_without_eyes_is_noticed_and_sent_no_image(server: JudgeServer) -> None:
    server.reads_images = False
    writer = Endpoint(urls=(server.url,))
    shown, plain = writer.write([asked(0, has_image=True), asked(1)])
    assert shown == Completion.failed("the server reads no images")
    assert plain.text == "2"
    assert len(server.asked) == 1
    assert writer.facts["server"] == "logprobs yes, n yes, seed accepted, images no"


def test_a_server_that_refuses_fields_is_asked_without_them(server: JudgeServer) -> None:
    def strict(body: dict[str, Any]) -> Fault | None:
        is_plain = {"logprobs", "seed", "n", "max_tokens"}.isdisjoint(body)
        return None if is_plain else Fault(400, b'{"error": {"message": "unsupported parameter"}}')

    server.probe_faults = strict
    writer = Endpoint(urls=(server.url,))
    assert texts(writer.write([asked(temperature=1.0, seed=3, choices=("1", "2"))])) == ["1"]
    assert set(server.asked[0]) == {"model", "messages", "temperature", "max_completion_tokens"}
    assert writer.facts["server"] == "logprobs no, n no, seed no, images no"


def test_images_are_sent_inline_in_their_place(server: JudgeServer) -> None:
    request = asked(has_image=True)
    assert texts(Endpoint(urls=(server.url,)).write([request])) == ["1"]
    [message] = server.asked[0]["messages"]
    image, text = message["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": request.messages[0].text}


def test_no_image_leaves_for_another_machine_unless_it_is_allowed(server: JudgeServer) -> None:
    writer = Endpoint(urls=(server.url, "https://judge.invalid/v1"), model="words-1")
    [written] = writer.write([asked(has_image=True)])
    assert written == Completion.failed(
        "has an image, and judge.invalid is another machine; allow it by --allow-upload, or allow_upload = "
        "true of the writer"
    )
    assert server.asked == server.probes == []
    # Not even the probe's own.
    writer.write([asked()])
    assert all(isinstance(message["content"], str) for body in server.probes for message in body["messages"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_wrong_ends_all_and_is_shown_nowhere(
    server: JudgeServer, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    body = b'{"error": {"message": "Incorrect API key provided: sk-secret"}}'
    server.faults = lambda number, _: Fault(status, body) if number == 2 else None
    writer = Endpoint(urls=(server.url,), key_variable="JUDGE_KEY", in_flight=1, cache=tmp_path)
    with pytest.raises(ConfigError) as caught:
        writer.write([asked(number) for number in range(9)])
    assert str(caught.value) == (
        f"{server.url} refuses the key ({status}): 'Incorrect API key provided: ***'; set the environment "
        "variable that key_variable names"
    )
    assert {each["authorization"] for each in server.headers} == {"Bearer sk-secret"}
    # What was answered before is kept; nothing more was sent.
    assert len(server.asked) == 3
    entries = list(tmp_path.rglob("*.json"))
    assert len(entries) == 2
    assert not any("sk-secret" in path.read_text() for path in entries)
    assert "sk-secret" not in f"{writer.facts} {writer.statistics}"


def test_a_key_is_named_by_its_variable_alone(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for variable, message in (
        ("NO_SUCH_KEY", "the environment variable NO_SUCH_KEY is not set, and key_variable names it"),
        ("sk-1f2e", "key_variable is the name of an environment variable, in capitals"),
    ):
        with pytest.raises(ConfigError) as caught:
            Endpoint(urls=(server.url,), key_variable=variable).write([asked()])
        assert str(caught.value).startswith(message)
        assert "sk-1f2e" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:secret@host/v1", "a base URL of host holds a user's name or password"),
        ("host:8000", "a base URL is http://HOST:PORT/v1 or https://HOST/v1, not 'host:8000'"),
        ("http://host/v1?key=1", "a base URL is http://HOST:PORT/v1"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Endpoint(urls=(url,))
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away_is_an_error_that_names_it() -> None:
    with serving(JudgeServer()) as server:
        url = server.url
    with pytest.raises(ConfigError, match=f"the judge's server gives no completion: {url}: ConnectError"):
        Endpoint(urls=(url,), model="words-1", max_tries=2).write([asked()])


def test_another_address_takes_over_from_one_that_is_away(server: JudgeServer) -> None:
    with serving(JudgeServer()) as other:
        away = other.url
    writer = Endpoint(urls=(away, server.url), model="words-1", in_flight=2)
    assert texts(writer.write([asked(number) for number in range(12)])) == ["1", "2"] * 6


def test_requests_are_shared_among_addresses(server: JudgeServer) -> None:
    with serving(JudgeServer()) as other:
        for each in (server, other):
            each.faults = lambda number, body: Fault(seconds=0.02)
        writer = Endpoint(urls=(server.url, other.url), in_flight=2)
        assert texts(writer.write([asked(number) for number in range(12)])) == ["1", "2"] * 6
        assert (server.most_in_flight, other.most_in_flight) == (2, 2)
        assert len(server.asked) + len(other.asked) == 12


def test_a_model_that_changes_midway_is_reported(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(
        change=lambda answer: {**answer, "model": f"words-{1 + number // 3}"}
    )
    writer = Endpoint(urls=(server.url,), in_flight=1)
    writer.write([asked(number) for number in range(5)])
    assert writer.facts["answered_by"] == "words-1 (3), words-2 (2)"
    assert writer.facts["warning"] == "the server has changed its model during the run"


def test_what_was_answered_is_not_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    server.faults = lambda number, body: Fault(400, b"{}") if number == 1 else None
    requests = [asked(number, choices=("1", "2")) for number in range(4)]
    first = Endpoint(urls=(server.url,), in_flight=1, cache=tmp_path).write(requests)
    assert [each.ending for each in first] == ["finished", "failed", "finished", "finished"]
    # A failure is no answer: it is asked again, alone.
    writer = Endpoint(urls=(server.url,), cache=tmp_path)
    second = writer.write(requests)
    assert texts(second) == ["1", "2", "1", "2"]
    assert (len(server.asked), server.asked[4]) == (5, server.asked[1])
    assert (writer.statistics["requests"], writer.statistics["cached"]) == (1, 3)
    # With the model's name no server is needed at all.
    server.url = "http://127.0.0.1:1/v1"
    assert Endpoint(urls=(server.url,), model="words-1", cache=tmp_path).write(requests) == second


def test_a_request_that_differs_in_anything_is_another_one(server: JudgeServer, tmp_path: Path) -> None:
    def write(request: Request, **options: Any) -> None:
        Endpoint(urls=(server.url,), cache=tmp_path, **options).write([request])

    request = asked(has_image=True)
    for different in (request, replace(request, temperature=1.0), replace(request, max_tokens=3)):
        write(different)
    write(request, extra={"top_k": 1})
    write(request, model="words-2")
    write(Request([Message("user", (Image(tiny.image(28, 28, 9)), request.messages[0].text))], max_tokens=16))
    assert len(server.asked) == 6
    write(request)
    assert len(server.asked) == 6


@pytest.mark.parametrize("damage", ["torn", "garbage", "another's", "altered"])
def test_an_entry_that_is_damaged_is_written_anew(server: JudgeServer, tmp_path: Path, damage: str) -> None:
    Endpoint(urls=(server.url,), cache=tmp_path).write([asked(0), asked(1)])
    path, other = sorted(tmp_path.rglob("*.json"))
    whole = path.read_bytes()
    path.write_bytes(
        {
            "torn": whole[: len(whole) // 2],
            "garbage": b"\xff\xfe\x00",
            "another's": other.read_bytes(),
            "altered": whole.replace(b"finished", b"cut"),
        }[damage]
    )
    writer = Endpoint(urls=(server.url,), cache=tmp_path)
    assert texts(writer.write([asked(0), asked(1)])) == ["1", "2"]
    assert len(server.asked) == 3
    assert writer.statistics["damaged_cache_entries"] == 1
    assert path.read_bytes() == whole


def test_equal_requests_at_the_same_time_are_sent_once(server: JudgeServer) -> None:
    server.faults = lambda number, body: Fault(seconds=0.05)
    assert texts(Endpoint(urls=(server.url,)).write([asked(0), asked(0), asked(1)])) == ["1", "1", "2"]
    assert len(server.asked) == 2


def test_votes_are_requests_of_their_own(server: JudgeServer) -> None:
    Endpoint(urls=(server.url,)).write([asked(temperature=1.0, seed=seed) for seed in range(3)])
    assert sorted(body["seed"] for body in server.asked) == [0, 1, 2]


def test_no_more_is_spent_than_allowed(server: JudgeServer, tmp_path: Path) -> None:
    # A million tokens that are read cost 1, and one that is written costs 1e5 / 1e6 = 0.1. A request writes
    # 16 tokens at most, and does write 2: it may cost 1.6 and costs 0.2, and a bit for what is read.
    writer = Endpoint(
        urls=(server.url,), in_flight=1, prompt_price=1.0, price=1e5, max_cost=2.0, cache=tmp_path
    )
    written = writer.write([asked(number) for number in range(9)])
    endings = [each.ending for each in written]
    # The third would have 0.4 spent before it, and might cost 1.6 and a bit more than 2 - 0.4 leaves.
    assert endings == ["finished"] * 2 + ["failed"] * 7
    assert written[-1].reason.startswith("the limit of cost is reached: 0.4")
    assert writer.statistics["cost"] == pytest.approx(0.4, abs=1e-3)
    assert len(server.asked) == 2
    # What was paid for once costs nothing again.
    again = Endpoint(urls=(server.url,), prompt_price=1.0, price=1e5, max_cost=2.0, cache=tmp_path)
    assert again.write([asked(0)]) == [written[0]]
    assert again.statistics == {"cached": 1}


def test_an_estimate_sends_nothing(server: JudgeServer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "urls": (server.url,),
        "model": "words-1",
        "prompt_price": 3.0,
        "price": 15.0,
        "cache": tmp_path,
    }
    requests = [asked(0), asked(1), asked(2, has_image=True)]
    Endpoint(**settings).write(requests[:1])
    estimate = Endpoint(**settings).estimate(requests)
    # A token for three characters, 1500 for an image, and 16 that may be written.
    num_characters = sum(len(request.messages[0].text) for request in requests[1:])
    assert estimate["requests"] == 3
    assert estimate["cached"] == 1
    assert estimate["prompt_tokens"] == pytest.approx(num_characters / 3 + 1500)
    assert estimate["tokens"] == 32
    assert estimate["cost"] == pytest.approx((estimate["prompt_tokens"] * 3 + 32 * 15) / 1e6)
    assert len(server.asked) == 1


def test_a_limit_of_cost_needs_prices() -> None:
    with pytest.raises(ConfigError, match="max_cost needs the prices of a million tokens"):
        Endpoint(max_cost=1.0)


def test_a_text_is_begun_only_where_the_server_goes_on_with_it(server: JudgeServer) -> None:
    request = asked(beginning="<think>")
    [refused] = Endpoint(urls=(server.url,)).write([request])
    assert refused.reason.startswith("begins with a text, which not every server goes on with")
    [written] = Endpoint(urls=(server.url,), continues=True).write([request])
    assert written.text.startswith("<think>")
    assert server.asked[0]["messages"][-1] == {"role": "assistant", "content": "<think>"}
    assert server.asked[0]["continue_final_message"] is True


def test_two_models_behind_one_address_need_a_name(server: JudgeServer) -> None:
    writer = Endpoint(urls=(server.url,))
    assert texts(writer.write([asked()])) == ["1"]
    assert server.asked[0]["model"] == "words-1"
    assert writer.facts["judge"] == "words-1"
