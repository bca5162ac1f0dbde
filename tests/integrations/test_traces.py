"""Traces of a larger model for a judge that reasons, and the judge's reinforcement on hard pairs."""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
from hub_datasets import write_frames, write_image

from basereward import Comparison, RewardModel
from basereward.data.formats import DetectedDataset
from basereward.message import Message
from basereward.paradigms.judge_rationales import given_rationales

FIRST = "<think>Response 1 is better.</think><answer>1</answer>"
SECOND = "<think>Response 2 is better.</think><answer>2</answer>"


@contextmanager
def chat_server(answers: list[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve answers in their order, over and over; give the address and the bodies of the requests."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = answers[len(bodies) % len(answers)]
            bodies.append({**body, "path": self.path, "key": self.headers["Authorization"]})
            answer = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Scripted:
    """A server that gives each text in its turn."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.num_asked = 0

    def ask(self, messages: Any) -> str:
        self.num_asked += 1
        return self.texts.pop(0)


def right_of(recipe: Any, comparison: Comparison) -> str:
    """Return the text whose verdict is right for the order that a pair is shown in."""
    [trace] = list(recipe("traces").traces([comparison], Always(FIRST), kept={}, log=io.StringIO(), tries=1))
    return FIRST if trace.is_right else SECOND


class Always(Scripted):
    def ask(self, messages: Any) -> str:
        self.num_asked += 1
        return self.texts[0]


def test_a_question_goes_out_with_its_images_and_its_key(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from basereward.media import Image, Video

    monkeypatch.setenv("JUDGE_KEY", "secret")
    write_image(tmp_path / "0.png", 0)
    write_frames(tmp_path / "clip", (f"{number:02}.png" for number in range(20)))
    message = Message("user", ("look: ", Image(tmp_path / "0.png"), Video(tmp_path / "clip")))
    with chat_server(["a cat"]) as (address, bodies):
        server = recipe("chat_server").ChatServer(address, "judge", key_variable="JUDGE_KEY")
        assert server.ask([message]) == "a cat"
    [body] = bodies
    assert (body["path"], body["key"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", 0.0)
    [sent] = body["messages"]
    kinds = [part["type"] for part in sent["content"]]
    assert kinds == ["text", "image_url", *["image_url"] * 8]  # eight frames of twenty
    assert sent["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(("answer", "rating"), [("1", 1.0), (" -1.", -1.0), ("0", 0.0), ("I agree", 0.0)])
def test_a_served_model_rates_consistency(answer: str, rating: float, recipe: Any) -> None:
    module = recipe("chat_server")
    with chat_server([answer]) as (address, bodies):
        rate = module.consistency(module.ChatServer(address, "judge"))
        assert rate("the first is better", 2) == rating
    text = bodies[0]["messages"][0]["content"][0]["text"]
    assert "the first is better" in text
    assert "Response 2 is better." in text


def test_a_pair_is_asked_about_until_its_verdict_is_right(recipe: Any) -> None:
    pair = Comparison("what?", ["a cat", "a dog"], ranks=[0, 1], id="1")
    right = right_of(recipe, pair)
    wrong = SECOND if right == FIRST else FIRST
    server = Scripted(wrong, "no form", right, "never asked")
    log = io.StringIO()
    [trace] = recipe("traces").traces([pair], server, kept={}, log=log)
    assert (trace.texts, trace.is_right, trace.is_hard) == ((wrong, "no form", right), True, True)
    given = pair.with_meta(
        judgements=[{"first": trace.order[0], "second": trace.order[1], "text": trace.texts[-1]}]
    )
    assert given_rationales(given, is_needed=True) == {trace.order: right}
    # Kept answers are not asked for again.
    entry = json.loads(log.getvalue())
    again = Scripted()
    kept = {entry["key"]: entry["texts"]}
    assert list(recipe("traces").traces([pair], again, kept=kept, log=log)) == [trace]
    assert again.num_asked == 0


def test_a_pair_that_is_never_judged_rightly_is_given_up_after_its_tries(recipe: Any) -> None:
    pair = Comparison("what?", ["a cat", "a dog"], ranks=[0, 1], id="1")
    server = Always("no form")
    [trace] = recipe("traces").traces([pair], server, kept={}, log=io.StringIO())
    assert (len(trace.texts), trace.is_right, trace.is_hard, server.num_asked) == (3, False, True, 3)


def test_orders_are_drawn_evenly_and_alike_each_time(recipe: Any) -> None:
    rows = [Comparison(f"what is {number}?", ["a", "b"], ranks=[0, 1]) for number in range(400)]
    module = recipe("traces")

    def orders_of() -> list[tuple[int, int]]:
        traces = module.traces(rows, Always(FIRST), kept={}, log=io.StringIO(), tries=1)
        return [trace.order for trace in traces]

    orders = orders_of()
    # 400 draws of 1/2: a standard deviation of 10, and 5 of them.
    assert abs(orders.count((0, 1)) - 200) < 50
    assert orders_of() == orders


def test_the_command_writes_traces_and_hard_rows_and_goes_on(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "0.png", 0)
    write_frames(tmp_path / "clip", ("0.png", "1.png"))
    rows = [
        {"prompt": f"what is {number}?", "images": ["0.png"], "responses": ["a", "b"], "ranks": [0, 1]}
        for number in range(6)
    ]
    rows.append({"prompt": "and now?", "videos": ["clip"], "responses": ["a", "b"], "ranks": [1, 0]})
    rows.append({"prompt": "a tie", "responses": ["a", "b"], "ranks": [0, 0]})
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    easy, hard = tmp_path / "traces.jsonl", tmp_path / "hard.jsonl"
    with chat_server([FIRST]) as (address, bodies):
        command = ["traces.py", str(data), "--output", str(easy), "--hard", str(hard), "--address", address]
        command += ["--threads", "2", "--overwrite"]
        monkeypatch.setattr(sys, "argv", command)
        recipe("traces").main()
        printed = capsys.readouterr().out
        num_asked = len(bodies)
        recipe("traces").main()
        assert (capsys.readouterr().out, len(bodies)) == (printed, num_asked)
    learned = list(DetectedDataset(easy))
    assert len(learned) + len(list(DetectedDataset(hard))) in (6, 7)  # a hard row with a video is left out
    assert num_asked == len(learned) + 3 * (7 - len(learned))
    assert f"{len(learned):,} right" in printed
    for row in learned:
        assert given_rationales(row, is_needed=True)
        assert row.meta["tries"] == 1
        assert all(image.open().size == (56, 56) for image in row.images)


def test_batches_and_draws_are_the_papers_whatever_the_gpus(recipe: Any) -> None:
    pytest.importorskip("trl")
    module = recipe("judge_7b")
    for world_size, per_device in ((1, 4), (8, 4), (16, 8)):
        made = module.settings("out", world_size=world_size, per_device=per_device, epochs=5)
        at_once = world_size * per_device
        assert made["gradient_accumulation_steps"] * at_once == 128
        assert made["steps_per_generation"] * at_once == 256
    with pytest.raises(SystemExit, match="24 answers at once don't divide the batch of 128"):
        module.settings("out", world_size=8, per_device=3, epochs=5)


@pytest.mark.filterwarnings("ignore")
def test_a_judge_is_reinforced_on_hard_rows_and_saved(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    from trl import GRPOConfig

    rows = [
        {"prompt": f"what is {number}?", "responses": ["a cat", "a dog"], "ranks": [0, 1]}
        for number in range(8)
    ]
    data = tmp_path / "hard.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = recipe("judge_7b")
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "DRAWN", 16)
    monkeypatch.setattr(module, "MAX_TOKENS", 4)
    made = module.settings(str(tmp_path / "grpo"), world_size=1, per_device=4, epochs=1)
    made |= {"bf16": False, "use_cpu": True, "max_steps": 2, "report_to": "none", "save_strategy": "no"}
    made |= {"disable_tqdm": True, "gradient_checkpointing": False}
    arguments = argparse.Namespace(
        sft=tiny.add_language_head(tiny.save_causal_lm(tmp_path / "sft")),
        data=data,
        output=tmp_path / "run",
        backbone="causal-lm",
    )
    module.reinforce(arguments, GRPOConfig(**made), lambda reasoning, verdict: 0.0)
    judge = RewardModel.load(tmp_path / "run" / "model")
    assert judge.components["paradigm"]["options"]["template"] == "reasoned"
