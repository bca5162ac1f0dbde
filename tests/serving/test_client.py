"""`basereward.Client` against a real server: the model's own rewards, and errors that name the field."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import served
import tiny

from basereward import Client, RewardModel, ServerError

ROW = {"prompt": "What is it?", "responses": ["a cat", "a small dog"]}


def client_of(server: served.Client, **options: object) -> Client:
    return Client(f"http://127.0.0.1:{server.port}/", **options)  # type: ignore[arg-type]


def test_rewards_are_those_of_the_model(vision: served.Client, vision_model: Path, tmp_path: Path) -> None:
    client, model = client_of(vision), RewardModel.load(vision_model)
    picture = tiny.image(84, 56)
    picture.save(tmp_path / "cat.png")
    expected = model.score({**ROW, "images": [picture]})
    for image in (picture, tmp_path / "cat.png", str(tmp_path / "cat.png"), served.encoded(picture)):
        assert client.score({**ROW, "images": [image]}) == pytest.approx(expected, abs=1e-5)
    assert client.score([ROW, ROW]) == [pytest.approx(model.score(ROW), abs=1e-5)] * 2
    assert client.models() == ["sees"]


def test_it_can_be_awaited(echo: served.Client) -> None:
    client = client_of(echo)

    async def both() -> list[list[float]]:
        return await asyncio.gather(client.score_async(ROW), client.score_async(ROW))

    # The stand-in's rewards are numbers of characters: len("a cat"), len("a small dog").
    assert asyncio.run(both()) == [[5.0, 11.0]] * 2


def test_errors_name_what_is_wrong(echo: served.Client) -> None:
    client = client_of(echo)
    with pytest.raises(ServerError, match="the response is empty") as caught:
        client.score([ROW, {**ROW, "responses": ["a", ""]}])
    assert (caught.value.status, caught.value.code) == (422, "response_empty")
    assert caught.value.param == "items[1].responses[1]"
    for row, param in (({"prompt": "a"}, "responses"), ({"responses": ["a"]}, "prompt")):
        with pytest.raises(ServerError) as caught:
            client.score(row)
        assert caught.value.param == f"items[0].{param}"
    with pytest.raises(ServerError, match="no such model"):
        client_of(echo, model="other").score(ROW)
    with pytest.raises(ServerError, match="an image is a path, bytes, base64 or a PIL image, not a int"):
        client.score({**ROW, "images": [3]})
    with pytest.raises(ServerError, match=r"write http://HOST:PORT"):
        Client("localhost:8000")
    with pytest.raises(ServerError, match=r"images is a list, not a str; write \[IMAGE\]"):
        client.score({**ROW, "images": "cat.png"})
    with pytest.raises(ServerError, match="http://127.0.0.1:1/v1/rewards can't be reached: "):
        Client("http://127.0.0.1:1", num_retries=0).score(ROW)


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers one after another; give the address, and the paths that were asked for."""
    asked: list[str] = []
    waiting = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = next(waiting)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_key_follows_no_redirect() -> None:
    with answering((302, {"Location": "/elsewhere"}, b"")) as (url, asked):
        with pytest.raises(ServerError, match="Found") as caught:
            Client(url, api_key="secret").score(ROW)
        assert caught.value.status == 302
        assert asked == ["/v1/rewards"]


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"data": null}', b'{"data": [{"index": 0}]}', b'{"data": []}']
)
def test_what_is_no_answer_of_ours_is_an_error_of_ours(body: bytes) -> None:
    with answering((200, {}, body)) as (url, _), pytest.raises(ServerError, match="answers"):
        Client(url).score([ROW])


@pytest.mark.external
def test_it_needs_no_torch() -> None:
    script = "import sys, basereward; basereward.Client('http://h'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
