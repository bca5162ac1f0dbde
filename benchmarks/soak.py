"""Soak test: requests good, bad, slow, cancelled and hostile for minutes; none lost, none wrong, memory flat.

Run as `make soak` or `python benchmarks/soak.py --seconds 600`. The server runs in a process of its own, with
a model of random weights that reads images; each reward is compared with the offline one. Among them are
connections whose headers never end, texts of control tokens' literals, bodies of many values, and images of
many pixels, of which few fit into the memory that the server may use for images. At the end the server is
told to stop while requests come in, one of them half sent, and must answer all that it accepted.

Memory is compared at rest: now and then all clients wait until nothing is in flight and the server has given
free memory back. Under load it goes up and down by 150 MB, with the images that are being decoded, and tells
of a leak nothing. The server's large blocks are mapped apart (`MALLOC_MMAP_THRESHOLD_`), as otherwise what
images leave free in glibc's heaps between others stays with them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load import Connection, Served, served
from PIL import Image

from basereward import Comparison, RewardModel
from basereward.config import Component

NUM_WORKERS = {"good": 12, "bad": 3, "slow": 3, "cancelled": 4, "half-open": 4, "literals": 2, "big": 2}
HEADER_SECONDS = 2
SIDE = 2000  # pixels of the width and of the height of a big image
PREPARED_BYTES = 24 * SIDE**2 + 2**20
"""Memory for one big image at a time, and small ones."""
STOP_SECONDS = 15
"""Seconds that a stop may take, but for those in which others had the processors: two for half-sent bodies,
ten for reading answers, and three more.
"""
WARM_UP = 0.3
"""The share of the time before the first rest, in which every kind of request is sent many times."""
REST_SECONDS = 7
"""Seconds of a rest after the last answer: the server gives free memory back every five."""
ALLOWED_GROWTH = 16.0
"""MiB that memory at rest may grow by, fewer than 20,000 requests that leave 1 KiB each: 19.5."""

BAD: tuple[tuple[str, bytes, int], ...] = (
    ("/v1/rewards", b"{", 400),
    ("/v1/rewards", b'{"items": [{"prompt": "x", "responses": [""]}]}', 422),
    ("/v1/rewards", b'{"items": [{"prompt": "<image>", "responses": ["a"]}]}', 422),
    ("/v1/rewards", b'{"items": [{"prompt": "x", "responses": ["a"], "images": ["AAAA"]}]}', 422),
    ("/v1/rewards", b'{"items": [], "model": "another"}', 404),
    ("/get_reward", b'{"query": ["no turns"]}', 422),
    ("/nowhere", b"{}", 404),
    ("/v1/rewards/", b"{}", 404),
    ("/v1/rewards", b'{"items": [' + b"{}," * 200_000 + b"{}]}", 422),
    ("/get_reward", b'{"query": [], "labels": [' + b"[]," * 200_000 + b"[]]}", 422),
    ("/reward", b'{"prompt": "x", "response": "' + b"<pad>" * 300_000 + b'"}', 422),
)

HALVES = (
    b"",
    b"POST /v1/rew",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
)
"""Requests that don't end."""


@dataclass
class Tally:
    """Counts of requests and their outcomes, and memory over time."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    at_rest: list[tuple[float, int]] = field(default_factory=list)
    in_flight: int = 0
    may_send: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    is_stopping: bool = False
    refused: int = 0


@dataclass(frozen=True)
class Good:
    """A request, the key of the rewards in its response, and the expected rewards."""

    path: str
    body: bytes
    where: str
    rewards: list[float]

    def rewards_of(self, answer: Any) -> list[float]:
        """Return the rewards of an answer."""
        if self.where == "data":
            return [value for item in answer["data"] for value in item["rewards"]]
        rewards = answer[self.where]
        return rewards if isinstance(rewards, list) else [rewards]


def literal_requests(model: RewardModel) -> list[Good]:
    """Return requests whose texts are literals of control tokens, and ends that don't count, with rewards."""
    literals = "<|im_start|>assistant\n<|im_end|>" * 20
    [rewards] = model.score([Comparison(literals, [literals])])
    item = {"prompt": literals, "responses": [literals]}
    [plain] = model.score([Comparison("what?", ["a"])])
    ends = {"prompt": "what?", "response": "a" + "<pad></s>" * 30_000}
    return [
        Good("/v1/rewards", json.dumps({"items": [item]}).encode(), "data", rewards),
        Good("/reward?key=rewards", json.dumps(ends).encode(), "rewards", plain),
    ]


def big_requests(model: RewardModel) -> list[Good]:
    """Return requests with images of many pixels in few bytes, with rewards."""
    requests = []
    for colour in ("red", "green"):
        buffer = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), colour).save(buffer, "PNG")
        [rewards] = model.score([Comparison("what?", ["a", "b"], images=[buffer.getvalue()])])
        images = [base64.b64encode(buffer.getvalue()).decode()]
        item = {"prompt": "what?", "responses": ["a", "b"], "images": images}
        requests.append(Good("/v1/rewards", json.dumps({"items": [item]}).encode(), "data", rewards))
    return requests


def good_requests(model: RewardModel) -> list[Good]:
    """Return requests of several APIs and sizes with their rewards."""
    chance = random.Random(0)

    def text(length: int) -> str:
        return "".join(chance.choice("abcdefgh ") for _ in range(length)) + "."

    requests = []
    for number in range(24):
        prompt, responses = text(chance.randint(5, 300)), [text(chance.randint(2, 80)) for _ in range(4)]
        noise = Image.frombytes("RGB", (32, 24), chance.randbytes(32 * 24 * 3))
        buffer = io.BytesIO()
        noise.save(buffer, "PNG")
        images = [buffer.getvalue()] if number % 2 else []
        [rewards] = model.score([Comparison(prompt, responses, images=images)])
        encoded = [base64.b64encode(image).decode() for image in images]
        item = {"prompt": prompt, "responses": responses, "images": encoded}
        requests.append(Good("/v1/rewards", json.dumps({"items": [item]}).encode(), "data", rewards))
        if not images:
            sample = {"query": [prompt + responses[0]], "prompts": [prompt], "labels": [None]}
            requests.append(Good("/get_reward", json.dumps(sample).encode(), "rewards", rewards[:1]))
    return requests


async def half_open(port: int, tally: Tally, chance: random.Random) -> None:
    """Open connections whose requests never end, and see that the server closes them."""
    while not tally.is_stopping:
        await tally.may_send.wait()
        tally.sent["half-open"] += 1
        tally.in_flight += 1
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(chance.choice(HALVES))
            while not reader.at_eof() and not tally.is_stopping:
                if time.perf_counter() - started > 10 * HEADER_SECONDS:
                    tally.lost.append("half-open: never closed")
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65536), 0.5)
                if chance.random() < 0.5:
                    writer.write(b"x")
        except OSError:  # closed, as it has to be
            pass
        finally:
            writer.close()
            tally.in_flight -= 1


async def worker(kind: str, port: int, requests: list[Good], tally: Tally, seed: int) -> None:
    """Send requests of a kind until it is over."""
    chance = random.Random(seed)
    if kind == "half-open":
        return await half_open(port, tally, chance)
    connection = Connection(port)
    while not tally.is_over:
        await tally.may_send.wait()
        tally.in_flight += 1
        try:
            await one(kind, connection, chance, requests, tally)
        except OSError as error:
            connection.close()
            if tally.is_stopping:
                tally.refused += 1
                return
            tally.lost.append(f"{kind}: {error!r}")
        finally:
            tally.in_flight -= 1
        if tally.is_stopping:
            connection.close()  # so that no request meets a connection that the server is about to close
    connection.close()


async def one(
    kind: str, connection: Connection, chance: random.Random, requests: list[Good], tally: Tally
) -> None:
    """Send a request, and look at its answer."""
    tally.sent[kind] += 1
    if kind == "bad":
        path, body, expected = chance.choice(BAD)
        status, answer = await connection.post(path, body)
        tally.answered[status] += 1
        await asyncio.sleep(0.01)
        if status not in (expected, 503) or "error" not in answer:
            tally.wrong.append(f"{path} {body!r}: {status} {answer}")
        return
    good = chance.choice(requests)
    if kind == "cancelled":
        await connection.send(good.path, good.body)
        await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
        connection.close()
        await asyncio.sleep(0.05)  # or cancelled requests would take all the time of the server
        return
    pieces = chance.randint(2, 5) if kind == "slow" else 1
    status, answer = await connection.post(good.path, good.body, pieces=pieces, pause=chance.random() / 10)
    tally.answered[status] += 1
    if status == 503 and tally.is_stopping:
        return
    if status != 200 or max(map(abs, map(float.__sub__, good.rewards_of(answer), good.rewards))) > 1e-5:
        tally.wrong.append(f"{good.path}: {status} {answer}, not {good.rewards}")
    if kind in ("literals", "big"):
        await asyncio.sleep(0.1)  # or they would take all the time of the server


async def watch(server: Served, tally: Tally) -> None:
    """Record the server's memory four times a second."""
    start = time.perf_counter()
    while not tally.is_stopping:
        tally.memory.append((time.perf_counter() - start, server.resident_bytes()))
        await asyncio.sleep(0.25)


async def starved_seconds(server: Served) -> float:
    """Wait until a server has ended, and return how long its main thread had work but no processor."""
    waited: list[float] = []
    with suppress(OSError):
        while True:
            waited.append(server.starved_seconds())
            await asyncio.sleep(0.1)
    return waited[-1] - waited[0] if waited else 0.0


async def rest(server: Served, tally: Tally, start: float) -> None:
    """Have all clients wait, and record the memory that the server has when nothing is in flight."""
    at = time.perf_counter() - start
    tally.may_send.clear()
    while tally.in_flight:
        await asyncio.sleep(0.1)
    sizes = []
    for _ in range(4 * REST_SECONDS):
        await asyncio.sleep(0.25)
        sizes.append(server.resident_bytes())
    tally.at_rest.append((at, min(sizes)))
    tally.may_send.set()


async def soak(
    server: Served, requests: dict[str, list[Good]], seconds: float, num_rests: int
) -> tuple[Tally, str, float]:
    """Load a server for some time, have it stop under load, and return its last words and how long it took.

    Args:
        server: The server.
        requests: Those of each kind; of kinds that have none of their own, those that are "good".
        seconds: How long, without the rests.
        num_rests: How often memory is looked at, from the end of the warm-up on.
    """
    tally = Tally()
    tally.may_send.set()
    start = time.perf_counter()
    kinds = [kind for kind, number in NUM_WORKERS.items() for _ in range(number)]
    tasks = {
        asyncio.create_task(
            worker(kind, server.port, requests.get(kind, requests["good"]), tally, seed)
        ): kind
        for seed, kind in enumerate(kinds)
    }
    watching = asyncio.create_task(watch(server, tally))
    await asyncio.sleep(WARM_UP * seconds)
    await rest(server, tally, start)
    for _ in range(num_rests - 1):
        await asyncio.sleep((1 - WARM_UP) * seconds / (num_rests - 1))
        await rest(server, tally, start)
    await asyncio.sleep(2)  # the load is back
    _, half = await asyncio.open_connection("127.0.0.1", server.port)
    half.write(
        b"POST /v1/rewards HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9\r\n\r\n{"
    )
    await asyncio.sleep(0.5)
    tally.is_stopping = True
    began = time.perf_counter()
    starving = asyncio.create_task(starved_seconds(server))
    last = await asyncio.to_thread(server.terminate)
    stop_seconds = time.perf_counter() - began - await starving
    tally.is_over = True
    half.close()
    await asyncio.gather(*tasks, watching)
    return tally, last, stop_seconds


def main() -> None:
    """Run the soak test, print its results, and fail where a request was lost or wrong or memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--rests", type=int, default=6, help="how often memory is looked at (default 6)")
    parser.add_argument(
        "--allowed-growth",
        type=float,
        default=ALLOWED_GROWTH,
        help=f"MiB at rest, after warming up (default {ALLOWED_GROWTH:g})",
    )
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="keep them for this machine")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        RewardModel.build(backbone=Component("tiny", {})).save(Path(directory) / "model")
        model = RewardModel.load(Path(directory) / "model")
        requests = {
            "good": good_requests(model),
            "literals": literal_requests(model),
            "big": big_requests(model),
        }
        options = ("--max-header-seconds", HEADER_SECONDS, "--max-prepared-bytes", PREPARED_BYTES)
        os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**20))
        with served(Path(directory) / "model", *options) as server:
            tally, last, stop_seconds = asyncio.run(
                soak(server, requests, arguments.seconds, arguments.rests)
            )
    rests = [(at, size / 2**20) for at, size in tally.at_rest]
    grown = rests[-1][1] - rests[0][1]
    results = {
        "seconds": arguments.seconds,
        "load_before": load_before,
        "sent": dict(tally.sent),
        "answered": {str(status): number for status, number in sorted(tally.answered.items())},
        "lost": len(tally.lost),
        "wrong": len(tally.wrong),
        "stop_seconds": round(stop_seconds, 2),
        "not_accepted_at_the_end": tally.refused,
        "mapped_apart_from_bytes": os.environ["MALLOC_MMAP_THRESHOLD_"],
        "memory_mib": {
            "at_rest": [round(size, 1) for _, size in rests],
            "at_rest_grown": round(grown, 1),
            "at_rest_a_minute": round(60 * statistics.linear_regression(*zip(*rests, strict=True)).slope, 2),
            "most": round(max(size for _, size in tally.memory) / 2**20, 1),
        },
        "last_words": last.strip().splitlines(),
    }
    print(json.dumps(results, indent=2))
    for line in [*tally.lost[:5], *tally.wrong[:5]]:
        print(line)
    if arguments.output or arguments.keep:
        import tables

        tables.save("soak", results, arguments.output, is_kept=arguments.keep)
    if tally.lost or tally.wrong or grown > arguments.allowed_growth or stop_seconds > STOP_SECONDS:
        raise SystemExit("requests were lost or wrong, memory grew, or the stop took long")


if __name__ == "__main__":
    main()
