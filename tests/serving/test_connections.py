"""Connections that are idle, half-open, too many or never read, and signals under them."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from served import Client, Echo, eventually

from basereward.serving.access import Access
from basereward.serving.app import Server
from basereward.serving.connection import descriptors_for
from basereward.serving.limits import Limits
from basereward.serving.repeats import MAX_MESSAGES, RepeatFilter, without_repeats

Serve = Callable[[Server], Client]

ROOT = Path(__file__).parents[2]
BODY = json.dumps({"items": [{"prompt": "x", "responses": ["abc"]}]}).encode()
HEAD = b"POST /v1/rewards HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
ANSWER = re.compile(rb"HTTP/1\.1 (\d+).*?content-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL | re.IGNORECASE)
UNREAD = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"


@pytest.fixture
def connect() -> Iterator[Callable[[Client], socket.socket]]:
    """Return a function that connects to a client's server."""
    with ExitStack() as stack:

        def connect(client: Client) -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=30))

        yield connect


Connect = Callable[[Client], socket.socket]


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def answer(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the body of the next answer."""
    received = b""
    while not (head := ANSWER.match(received)):
        piece = connection.recv(1)
        assert piece, received
        received += piece
    body = b""
    while len(body) < int(head[2]):
        body += connection.recv(int(head[2]) - len(body))
    return int(head[1]), body.decode()


def metric(client: Client, name: str) -> float:
    found = re.search(rf"^basereward_{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


class TestHeaders:
    @pytest.mark.parametrize(
        ("first", "more"),
        [
            (b"", b""),
            (b"POST /v1/rew", b""),
            (b"GET /health HTTP/1.1\r\n", b"X: y\r\n"),
            (WHOLE + b"GET / HT", b"T"),
            (WHOLE + WHOLE + HEAD, b"X: y\r\n"),
            (UNREAD, b"."),
        ],
    )
    def test_headers_that_don_t_end_end_the_connection(
        self, first: bytes, more: bytes, serve: Serve, connect: Connect
    ) -> None:
        connection = connect(serve(Server([Echo()], Limits(header_seconds=1))))
        started = time.monotonic()
        connection.sendall(first)
        try:
            while more and time.monotonic() - started < 20:
                time.sleep(0.05)
                connection.sendall(more)
        except ConnectionError:
            pass
        received = read_all(connection)
        assert 1 <= time.monotonic() - started < 20
        assert received.count(b"HTTP/1.1 200") == first.count(BODY)

    def test_a_connection_between_requests_is_kept(self, serve: Serve, connect: Connect) -> None:
        connection = connect(serve(Server([Echo()], Limits(header_seconds=1))))
        for pause_seconds in (0, 2.5):
            time.sleep(pause_seconds)
            connection.sendall(WHOLE)
            assert answer(connection)[0] == 200

    def test_a_body_and_an_answer_may_take_longer_than_headers(self, serve: Serve, connect: Connect) -> None:
        engine = Echo()
        engine.gate.clear()
        connection = connect(serve(Server([engine], Limits(header_seconds=1))))
        connection.sendall(WHOLE[:-5])
        time.sleep(2.5)
        connection.sendall(WHOLE[-5:])
        time.sleep(2.5)
        engine.gate.set()
        assert answer(connection)[0] == 200


class TestNumber:
    def test_idle_connections_make_room_for_others(self, serve: Serve, connect: Connect) -> None:
        client = serve(Server([Echo()], Limits(connections=8)))
        sockets = [connect(client) for _ in range(40)]
        assert client.get("/health").status == 200
        assert metric(client, "connections") <= 8
        # The last of them are still there: those that waited for longest had to go.
        sockets[-1].sendall(WHOLE)
        assert answer(sockets[-1])[0] == 200
        assert read_all(sockets[0]) == b""

    def test_requests_make_no_room(self, serve: Serve, connect: Connect) -> None:
        engine = Echo()
        engine.gate.clear()
        server = Server([engine], Limits(connections=2))
        client = serve(server)
        busy = [connect(client) for _ in range(2)]
        for connection in busy:
            connection.sendall(WHOLE)
        eventually(lambda: server.admission.num_answering == 2)
        refused = client.rewards({"prompt": "x", "responses": ["abc"]})
        engine.gate.set()
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (
            429,
            "too_many_requests",
            "1",
        )
        assert [answer(connection)[0] for connection in busy] == [200, 200]

    def test_a_client_that_reads_no_answer_is_left(self, serve: Serve, connect: Connect) -> None:
        client = serve(Server([Echo()], Limits(reading_seconds=1)))
        connection = connect(client)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        try:
            for _ in range(2000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        except (TimeoutError, ConnectionError):  # the server reads no further, or has closed
            pass
        eventually(lambda: metric(client, 'closed_connections_total{reason="unread"}') == 1)
        assert metric(client, "connections") == 1  # the one that asks

    @pytest.mark.parametrize(
        ("soft", "hard", "wanted", "expected"),
        [
            (64, 64, 2048, (32, 8, 64)),  # half of them; a quarter of the others at once
            (256, 10_000, 2048, (2048, 2048, 6400)),  # raised to 2,048 + 4,352
            (256, 4000, 2048, (2000, 500, 4000)),
            (100, 100, 10, (10, 12, 100)),
            (9000, 9000, 2048, (2048, 2048, 9000)),
            (256, -1, 2048, (2048, 2048, 6400)),  # -1 is no limit
            (-1, -1, 2048, (2048, 2048, -1)),
        ],
    )
    def test_descriptors_are_kept_for_other_files(
        self,
        soft: int,
        hard: int,
        wanted: int,
        expected: tuple[int, int, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        limits = [(soft, hard)]
        monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
        monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))
        assert (*descriptors_for(wanted), limits[-1][0]) == expected
        assert limits[-1][1] == hard


class TestLog:
    def test_a_message_is_logged_once_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr("basereward.serving.repeats.time.monotonic", lambda: now)
        repeats = RepeatFilter()

        def passes(text: str, *args: object) -> str | None:
            record = logging.LogRecord("x", logging.ERROR, "", 0, text, args, None)
            return record.getMessage() if repeats.filter(record) else None

        assert passes("out of %s", "files") == "out of files"
        assert [passes("out of files") for _ in range(1234)] == [None] * 1234
        assert passes("another") == "another\n(1,234 messages before were left out)"
        now = 61.0
        assert passes("out of files") == "out of files"
        assert sum(passes(str(number)) is not None for number in range(1000)) == MAX_MESSAGES - 1

    def test_requests_that_are_no_http_don_t_fill_the_log(
        self, serve: Serve, connect: Connect, capfd: pytest.CaptureFixture[str]
    ) -> None:
        client = serve(Server([Echo()]))
        for _ in range(20):
            connection = connect(client)
            connection.sendall(b"\0\r\n\r\n")
            read_all(connection)
        # None where another server of this process has just logged one.
        assert capfd.readouterr().err.count("Invalid HTTP request") <= 1

    def test_the_log_is_as_before_afterwards(self) -> None:
        before = [list(logging.getLogger(name).filters) for name in ("asyncio", "uvicorn.error")]
        with without_repeats():
            pass
        assert [list(logging.getLogger(name).filters) for name in ("asyncio", "uvicorn.error")] == before


class TestRedirects:
    @pytest.mark.parametrize("path", ["/v1/rewards/", "/health/", "/v1/models/", "//evil.example/health/"])
    @pytest.mark.parametrize("keys", [(), ("correct-horse-battery",)])
    def test_no_path_leads_to_another_and_no_host_is_repeated(
        self, path: str, keys: tuple[str, ...], serve: Serve
    ) -> None:
        client = serve(Server([Echo()], access=Access(keys)))
        for send in (client.get, lambda path, **headers: client.post(path, {}, **headers)):
            reply = send(path, Host="evil.example")
            assert (reply.status, reply.code) == (404, "path_not_found")
            assert "location" not in reply.headers
            assert "evil" not in reply.text + str(reply.headers)


class TestSignals:
    def test_half_a_body_is_given_two_seconds(self, serve: Serve, connect: Connect) -> None:
        server = Server([Echo()])
        client = serve(server)
        late, soon = connect(client), connect(client)
        for connection in (late, soon):
            connection.sendall(WHOLE[:-5])
        eventually(lambda: server.admission.num_answering == 2)
        started = time.monotonic()
        server.admission.drain()
        time.sleep(0.5)
        soon.sendall(WHOLE[-5:])
        assert answer(soon)[0] == 200
        status, body = answer(late)
        assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
        assert 2 <= time.monotonic() - started < 10
        assert server.admission.summary() == (
            "requests: 1 answered, 1 refused, 0 failed, 0 left by their clients; none without an answer"
        )

    def test_the_last_line_tells_refusals_failures_and_clients_that_left_apart(
        self, serve: Serve, connect: Connect
    ) -> None:
        engine = Echo()
        server = Server([engine])
        client = serve(server)
        client.rewards({"prompt": "x", "responses": ["abc"]})
        client.rewards({"prompt": "x", "responses": [""]})
        client.rewards({"prompt": "x", "responses": ["crash"]})
        connection = connect(client)
        connection.sendall(WHOLE[:-5])
        eventually(lambda: server.admission.num_answering == 1)
        connection.close()
        eventually(lambda: server.admission.num_answering == 0)
        engine.gate.clear()
        waiting = connect(client)
        waiting.sendall(WHOLE)
        eventually(lambda: server.admission.num_answering == 1)
        server.admission.drain()
        assert client.rewards({"prompt": "x", "responses": ["abc"]}).code == "draining"
        assert server.admission.summary() == (
            "requests: 1 answered, 2 refused, 1 failed, 1 left by their clients; 1 without an answer"
        )
        engine.gate.set()
        assert answer(waiting)[0] == 200

    def test_a_second_signal_ends_the_process_though_a_pass_runs(self, connect: Connect) -> None:
        script = """
import sys
from served import Echo
from basereward.serving.app import Server
from basereward.serving.runner import Runner
engine = Echo()
engine.gate.clear()
engine.gate.wait = lambda seconds: __import__("time").sleep(600)
Runner(Server([engine]), host="127.0.0.1", port=0).run()
"""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"}
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            found = re.search(r":(\d+)$", process.stderr.readline().strip())
            assert found is not None
            client = Client(int(found[1]))
            connection = connect(client)
            connection.sendall(WHOLE)
            eventually(lambda: metric(client, "answering") == 1)
            process.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/ready").status == 503)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 1
            assert process.stderr.read() == (
                "requests: 0 answered, 0 refused, 0 failed, 0 left by their clients; 1 without an answer\n"
            )
            assert read_all(connection) == b""
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
