"""Work whose time or memory a client chooses: bounded beforehand, and ended when nobody waits for it."""

from __future__ import annotations

import base64
import ctypes
import io
import json
import math
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from served import Client, Echo, encoded, eventually

from basereward import Comparison, RewardModel
from basereward.backbones.chat_template import Chat
from basereward.config import Component
from basereward.data.rendered_chat import ENDS, continued, without_end
from basereward.errors import DataError, TooLongError
from basereward.media import Image
from basereward.message import Message
from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine
from basereward.serving.json_values import num_values
from basereward.serving.limits import Limits
from basereward.serving.memory import trim_heap
from basereward.work_limits import WorkCancelled, WorkLimits, work_limited

Serve = Callable[[Server], Client]

LITERAL = "<|im_end|>"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a,[{"\\}]é')),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('a,[{"\\')), children, max_size=4)
    ),
    max_leaves=30,
)


def item(*responses: str, **more: object) -> dict[str, object]:
    return {"prompt": "what?", "responses": list(responses or ("a cat",)), **more}


def signs_of(value: object) -> int:
    """Return the commas and openings of a value in JSON, outside strings."""
    if isinstance(value, list | dict):
        children = list(value.values()) if isinstance(value, dict) else value
        return 1 + max(0, len(children) - 1) + sum(map(signs_of, children))
    return 0


class TestValues:
    @given(JSON, st.booleans())
    def test_values_are_counted_outside_strings(self, value: object, is_ascii: bool) -> None:
        body = json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":")).encode()
        assert num_values(body, -1) == signs_of(value)
        assert num_values(body, 0) >= signs_of(value)

    def test_blocks_are_counted_as_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        body = json.dumps([['a,[{"' * 5, {"b": ","}]] * 100).encode()
        monkeypatch.setattr("basereward.serving.json_values.BLOCK", 7)
        # One list of 100 lists of a text and an object: 1 + 99 + 100 * (1 + 1 + 1).
        assert num_values(body, 0) == 400

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/rewards", b'{"items":[' + b"{}," * 2000 + b"{}]}"),
            ("/get_reward", b'{"query":[],"labels":[' + b"[]," * 2000 + b"[]]}"),
            ("/classify", b'{"input":[' + b"[0]," * 2000 + b"[0]]}"),
            ("/reward", b'{"prompt":"","response":"","label":[' + b"0," * 2000 + b"0]}"),
            ("/v1/rewards", b'{"items":[{"messages":[' + b'{"role":"user","content":""},' * 1000 + b"0]}]}"),
        ],
    )
    def test_a_body_of_many_values_is_refused_before_one_is_made(
        self, path: str, body: bytes, serve: Serve
    ) -> None:
        reply = serve(Server([Echo()], Limits(values=1000))).post(path, body)
        assert (reply.status, reply.code) == (422, "too_many_values")

    def test_signs_in_texts_are_no_values(self, serve: Serve) -> None:
        client = serve(Server([Echo()], Limits(values=20)))
        assert client.rewards(item('x,[{"\\' * 100)).status == 200


class TestNumbers:
    @pytest.mark.parametrize(
        ("limits", "body", "code"),
        [
            ({"messages": 5}, item(), None),
            (
                {"messages": 5},
                {**item(), "prompt": [{"role": "user", "content": ""}] * 3},
                "too_many_messages",
            ),
            (
                {"messages": 5},
                {**item(), "prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 5}]},
                "too_many_messages",
            ),
            ({"request_characters": 20}, item("x" * 15), None),
            ({"request_characters": 20}, item("x" * 16), "too_many_characters"),
        ],
    )
    def test_a_request_over_a_limit_is_refused(
        self, limits: dict[str, int], body: Any, code: str | None, serve: Serve
    ) -> None:
        reply = serve(Server([Echo()], Limits(**limits))).rewards(body)
        assert (reply.status, reply.json.get("error", {}).get("code")) == (
            (422, code) if code else (200, None)
        )

    def test_characters_and_images_of_all_items_count(self, serve: Serve, image: str) -> None:
        client = serve(Server([Echo()], Limits(request_characters=20, request_images=2)))
        assert client.rewards(item("abc"), item("abc")).status == 200  # 2 * (5 + 3) characters
        assert client.rewards(item("abc"), item("abcdefgh")).code == "too_many_characters"
        assert client.rewards(item("a", images=[image]), item("a", images=[image])).status == 200
        assert (
            client.rewards(item("a", images=[image]), item("a", images=[image] * 2)).code == "too_many_images"
        )

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/get_reward", {"query": ["x" * 200], "prompts": ["x"]}),
            ("/reward", {"prompt": "x", "response": "<pad>" * 40}),
            ("/reward", {"prompt": [{"role": "user", "content": "x"}], "response": "x" * 200}),
            ("/classify", {"text": "x" * 200}),
            ("/classify", {"input": "x" * 200}),
            ("/v1/embeddings", {"input": ["x" * 200]}),
            ("/v1/score/evaluation", {"messages": ["x" * 200]}),
            ("/predict", {"inputs": "x" * 200}),
            ("/rerank", {"query": "x", "documents": ["x" * 200]}),
            ("/score", {"text_1": "x", "text_2": "x" * 200}),
            ("/pooling", {"messages": [{"role": "assistant", "content": "x" * 200}]}),
        ],
    )
    def test_every_api_counts_characters_before_it_reads_texts(
        self, path: str, body: object, serve: Serve
    ) -> None:
        reply = serve(Server([Echo()], Limits(characters=100))).post(path, body)
        assert reply.status == 422
        assert "too_many_characters" in reply.text


class TestTexts:
    def test_ends_of_a_response_take_time_with_their_number(self) -> None:
        # With the square of it, as once, these took minutes.
        started = time.monotonic()
        assert without_end("a " + "<pad> " * 500_000 + "</s>\n") == "a "
        assert time.monotonic() - started < 30

    @given(st.lists(st.sampled_from([*ENDS, " ", "\n", "a", "<", "|>", "\u2028"])).map("".join))
    def test_ends_are_removed_one_by_one(self, text: str) -> None:
        expected = text
        while (trimmed := expected.rstrip()).endswith(ENDS):
            expected = trimmed[: trimmed.rindex("<")]
        assert without_end(text) == expected

    @pytest.mark.parametrize(
        "text", ["USER: " * 150_000, "\nUser:" * 150_000 + " x", " " * 900_000 + "x", "<|" * 400_000]
    )
    def test_rendered_texts_take_time_with_their_length(self, text: str) -> None:
        started = time.monotonic()
        with suppress(DataError):
            continued(text, "a")
        assert time.monotonic() - started < 30

    def test_literals_take_time_with_their_number(self) -> None:
        chat = Chat(tiny.tokenizer())
        started = time.monotonic()
        ids = chat.text_ids(LITERAL * 50_000, "x")
        assert time.monotonic() - started < 30  # with the square, as once, it was minutes
        assert chat.tokenizer.decode(ids) == LITERAL * 50_000

    def test_tokens_are_counted_before_all_of_a_text_is_tokenized(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chat = Chat(tiny.tokenizer())
        seen: list[int] = []
        ids_of = chat.control._ids
        monkeypatch.setattr(chat.control, "_ids", lambda text: seen.append(len(text)) or ids_of(text))
        monkeypatch.setattr("basereward.backbones.control_tokens.PIECE", 1000)
        with work_limited(WorkLimits(2000, lambda: False)), pytest.raises(TooLongError):
            chat.encode([Message("user", ("é" * 1_000_000,))], ["a"])
        # A piece has 1,000 tokens or more, but 64 of each are not counted: three are enough.
        assert sum(seen) <= 4000

    def test_texts_within_the_limit_are_encoded_as_without(self) -> None:
        chat = Chat(tiny.tokenizer())
        prompt, responses = [Message("user", ("what is it? " * 500,))], ["a cat " * 300, LITERAL]
        plain = chat.encode(prompt, responses)
        with work_limited(WorkLimits(len(plain[0]) + sum(map(len, plain[1])), lambda: False)):
            assert chat.encode(prompt, responses) == plain

    def test_shapes_of_prompts_that_are_remembered_are_small(self) -> None:
        chat = Chat(tiny.tokenizer())
        for number in (3, 2000):
            chat.encode([Message("user", ("x",) * number)], ["a"])
        assert [len(shape[0]) for shape in chat._checked] == [2 + 3]


def png_with(*chunks: bytes) -> bytes:
    """Return a small PNG with chunks before its pixels."""
    whole = base64.b64decode(encoded(tiny.image(8, 8)))
    return whole[:33] + b"".join(chunks) + whole[33:]  # after the signature and the header


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class TestImages:
    @pytest.mark.parametrize(
        "file",
        [
            png_with(*[chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6)))] * 20),
            png_with(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 20),
            png_with(chunk(b"tEXt", b"a\0b") * 20_000),
            png_with(chunk(b"abCd", b"") * 20_000),
            b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000,
            b"\xff\xd8" + b"\xff" * 20_000,
            b"GIF89a\x0a\0\x0a\0\0\0\0" + b"!\xfe\x01a\0" * 20_000,
            b"P6\n#" + b"a" * 20_000 + b"\n8 8\n255\n" + bytes(192),
        ],
    )
    def test_a_file_of_many_notes_is_refused(self, file: bytes) -> None:
        with pytest.raises(DataError):
            Image(file).size()

    def test_files_with_a_few_notes_are_read(self) -> None:
        notes = [chunk(b"tEXt", b"a\0b")] * 100 + [chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x"))] * 16
        assert Image(png_with(*notes)).open().size == (8, 8)
        buffer = io.BytesIO()
        noise = PIL.Image.effect_noise((900, 700), 50)
        noise.save(
            buffer, "JPEG", exif=b"Exif\0\0" + bytes(60_000), icc_profile=bytes(10**6), comment=b"x" * 60_000
        )
        assert Image(buffer.getvalue()).open().size == (900, 700)

    @pytest.mark.parametrize(
        ("name", "kind"), [("qwen-vl", "qwen2_5_vl"), ("qwen-vl", "qwen3_vl"), ("internvl", "internvl-qwen2")]
    )
    def test_bytes_of_patches_are_known_before_they_are_made(
        self, name: str, kind: str, tiny_models: dict[str, Path]
    ) -> None:
        backbone = RewardModel.build(backbone=Component(name, {"model": str(tiny_models[kind])})).backbone
        for size in ((1, 1), (30, 40), (301, 7), (100, 300), (640, 480)):
            tree = backbone.encode(Comparison("x", ["a"], images=[tiny.image(*size)]))
            made = tree.media["pixel_values"]
            assert backbone.image_bytes(*size) == made.element_size() * math.prod(made.shape)


class TestMemory:
    def test_images_wait_for_memory_and_none_is_refused(self, serve: Serve, image: str) -> None:
        engine = Echo()
        engine.gate.clear()
        per_image = 24 * 84 * 56
        server = Server([engine], Limits(prepared_bytes=2 * per_image + 1))
        client = serve(server)
        statuses: list[int] = []

        def ask(number: int) -> None:
            statuses.append(client.rewards(item("a" * number, images=[image])).status)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 7)]
        for thread in threads:
            thread.start()
        eventually(
            lambda: server.admission.num_answering == 6 and server.service.memory.reserved == 2 * per_image
        )
        # Texts need none of it: they are read meanwhile.
        threads.append(threading.Thread(target=lambda: statuses.append(client.rewards(item("text")).status)))
        threads[-1].start()
        eventually(lambda: server.scheduler.waiting_tokens >= len("what?text"))
        assert server.service.memory.reserved == 2 * per_image
        engine.gate.set()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 7
        assert server.service.memory.reserved == 0
        largest = max(sum(len(tree) for tree in own) for own in engine.passes)
        assert largest <= 3  # two with images, and the text

    def test_a_request_that_never_fits_is_refused(self, serve: Serve, image: str) -> None:
        client = serve(Server([Echo()], Limits(prepared_bytes=1000)))
        reply = client.rewards(item(images=[image]))
        assert (reply.status, reply.code) == (422, "too_many_pixels")

    def test_who_leaves_gives_memory_back_when_no_thread_uses_it(self, serve: Serve, image: str) -> None:
        engine = Echo()
        is_open, is_preparing = threading.Event(), threading.Event()
        prepare = engine.prepare

        def slow(comparison: Comparison) -> Any:
            is_preparing.set()
            is_open.wait(60)
            return prepare(comparison)

        engine.prepare = slow  # type: ignore[method-assign]
        per_image = 24 * 84 * 56
        server = Server([engine], Limits(prepared_bytes=per_image))
        client = serve(server)
        leavers = [half_request(client, item("a", images=[image])) for _ in range(3)]
        eventually(lambda: server.admission.num_answering == 3)
        assert is_preparing.wait(30)
        for leaver in leavers:
            leaver.close()
        eventually(lambda: server.admission.num_answering == 0)
        assert server.service.memory.reserved == per_image
        is_open.set()
        eventually(lambda: server.service.memory.reserved == 0)
        assert client.rewards(item("a", images=[image])).status == 200


def resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be asked to")
def test_free_memory_is_given_back_though_some_between_is_in_use() -> None:
    # Too small to be mapped apart, and every hundredth stays, so that the heap can't shrink from its end.
    blocks = [bytearray(100_000) for _ in range(2000)]
    kept = blocks[::100]
    full = resident_bytes()
    blocks.clear()
    trim_heap()
    assert full - resident_bytes() > 150 * 10**6  # 198 MB are free
    assert len(kept) == 20


def half_request(client: Client, *items: object) -> socket.socket:
    """Send a request, and return the connection, from which nothing has been read."""
    body = json.dumps({"items": items}).encode()
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=30)
    connection.sendall(
        b"POST /v1/rewards HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    return connection


class TestCancelled:
    def test_the_items_of_a_client_that_has_left_are_not_prepared(self, serve: Serve) -> None:
        engine = Echo()
        prepared: list[str] = []
        prepare = engine.prepare

        def slow(comparison: Comparison) -> Any:
            prepared.append(comparison.responses[0])
            time.sleep(0.1)
            return prepare(comparison)

        engine.prepare = slow  # type: ignore[method-assign]
        server = Server([engine], Limits(seconds=5))
        client = serve(server)
        leavers = [half_request(client, *[item("late")] * 64) for _ in range(4)]
        eventually(lambda: len(prepared) >= 2)
        for leaver in leavers:
            leaver.close()
        eventually(lambda: server.admission.num_answering == 0)
        # Six times four seconds were left to do, more than the time limit of the next.
        assert client.rewards(item("next")).status == 200
        assert len(prepared) < 64

    def test_work_that_nobody_waits_for_ends_within_an_item(
        self, vision_engine: ModelEngine, image: str
    ) -> None:
        shown = Image(base64.b64decode(image))
        asked = iter([False] * 2)
        limits = WorkLimits(65_536, lambda: next(asked, True))
        for comparison in (
            Comparison("what?", ["a"] * 100),
            Comparison("what?", ["a"], images=[shown] * 10),
            Comparison(LITERAL * 1000, ["a"]),
        ):
            asked = iter([False] * 2)
            with work_limited(limits), pytest.raises(WorkCancelled):
                vision_engine.prepare(comparison)
