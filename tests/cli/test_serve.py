"""`basereward serve` in a process of its own, to its end by a signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from rounding import TINY_REWARD
from served import Client, eventually

import basereward
from basereward import Comparison, RewardModel, cli
from basereward.config import Component
from basereward.extras import install_command
from basereward.scoring.ensemble import Ensemble

KEY = "another-long-key"
RESPONSES = ["a cat", "a dog"]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory that loads in no time."""
    directory = tmp_path_factory.mktemp("run") / "model"
    RewardModel.build(backbone=Component("tiny", {})).save(directory)
    return directory


@contextmanager
def serving(*arguments: object, limit: int | None = None) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Start a server at a free port, and yield it and a client; `limit` is that of its descriptors."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(basereward.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-m", "basereward", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command if limit is None else ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"on http://\S+:(\d+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, Client(int(found[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def both(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an ensemble."""
    root = tmp_path_factory.mktemp("both")
    RewardModel.build(backbone=Component("tiny", {"num_layers": 1})).save(root / "second" / "model")
    Ensemble.of({"one": tiny_model, "two": root / "second" / "model"}).save(root / "both")
    return root / "both"


@pytest.fixture(scope="module")
def client(tiny_model: Path, both: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client with a key, of a server of three models."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"correct-horse-battery\n{KEY}\n")
    with serving(tiny_model, f"other={tiny_model}", both, "--api-key-file", keys) as (_, client):
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.mark.external
def test_a_directory_is_served_under_its_name_and_under_others(client: Client, tiny_model: Path) -> None:
    [offline] = RewardModel.load(tiny_model).score([Comparison("what?", RESPONSES)])
    assert [own["id"] for own in client.get("/v1/models").json["data"]] == ["model", "other", "both"]
    for name in (None, "model", "other"):
        reply = client.rewards({"prompt": "what?", "responses": RESPONSES}, model=name)
        assert reply.json["data"][0]["rewards"] == pytest.approx(offline, abs=TINY_REWARD)
        assert reply.json["model"] == (name or "model")


@pytest.mark.external
def test_an_ensemble_is_served_with_its_members(client: Client, both: Path) -> None:
    [offline] = Ensemble.load(both).score([Comparison("what?", RESPONSES)])
    [answer] = client.rewards({"prompt": "what?", "responses": RESPONSES}, model="both").json["data"]
    assert answer["rewards"] == pytest.approx(offline, abs=TINY_REWARD)
    assert answer["members"] == {
        name: pytest.approx(own, abs=TINY_REWARD) for name, own in offline.members.items()
    }
    assert answer["disagreement"] == pytest.approx(offline.disagreement, abs=TINY_REWARD)


@pytest.mark.external
def test_without_a_key_of_the_file_nobody_is_let_in(client: Client) -> None:
    assert client.get("/v1/models", Authorization="Bearer another-one").status == 401
    assert client.get("/v1/models", Authorization="Bearer correct-horse-battery").status == 200


@pytest.mark.external
def test_a_signal_under_load_loses_no_request(tiny_model: Path) -> None:
    [offline] = RewardModel.load(tiny_model).score([Comparison("what?", ["a cat"])])
    statuses: list[int] = []
    wrong: list[object] = []
    with serving(tiny_model) as (process, client):

        def ask() -> None:
            while True:
                try:
                    reply = client.rewards({"prompt": "what?", "responses": ["a cat"]})
                except ConnectionError:  # nobody listens any more
                    return
                statuses.append(reply.status)
                if reply.status == 200:
                    if reply.json["data"][0]["rewards"] != pytest.approx(offline, abs=TINY_REWARD):
                        wrong.append(reply.json)
                elif (reply.status, reply.code) != (503, "draining"):
                    wrong.append(reply.text)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(statuses) > 100)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(30) == 0
        assert process.stderr is not None
        # What came after nobody listened any more was reset, and is in neither number.
        answered, refused = statuses.count(200), statuses.count(503)
        assert process.stderr.read() == (
            f"requests: {answered:,} answered, {refused:,} refused, 0 failed, 0 left by their clients; "
            "none without an answer\n"
        )
    assert wrong == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/model", "b/model"], "two models would be called 'model'; write NAME=DIR"),
        (["model", "--max-items", "0"], "--max-items is a number >= 1, not 0"),
        (
            ["model", "--temperature", "0"],
            "--temperature 0: a temperature is a finite number > 0, such as 1.5",
        ),
        (["a=x", "b=y", "--temperature", "2"], "--temperature 2: write NAME=T; models: a, b"),
        (["model", "--api-key", "short"], "an API key has 8 or more printable ASCII characters and no space"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", *arguments]) == 2
    assert capsys.readouterr().err == f"basereward: error: {message}\n"


def test_a_port_that_is_taken_is_an_error_of_the_command_line(
    client: Client, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", str(tiny_model), "--port", str(client.port)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"basereward: error: can't listen at 127.0.0.1, port {client.port}"


def test_a_file_without_a_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert cli.main(["serve", "model", "--api-key-file", str(empty)]) == 2
    assert capsys.readouterr().err == f"basereward: error: --api-key-file {empty}: there is no key in it\n"


def test_without_its_packages_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("basereward.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert cli.main(["serve", "model"]) == 2
    assert capsys.readouterr().err == f"basereward: error: needs msgspec; {install_command('serve')}\n"


def test_few_descriptors_bound_the_connections_and_fill_no_log(tiny_model: Path) -> None:
    with serving(tiny_model, limit=64) as (process, client), ExitStack() as stack:
        address = ("127.0.0.1", client.port)
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(200)]
        assert client.get("/health").status == 200
        connections[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connections[-1].recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith(
        "at most 32 connections, since the process may have no more descriptors (ulimit -n)\n"
    )
    assert len(said) < 2000
