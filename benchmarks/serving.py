"""Measure the server: concurrent clients, one client, and one request for many responses.

Run as `python benchmarks/serving.py`. The models are the first layers of SmolLM2-135M for texts, and for
images that of the demo; both need `basereward-mini` and the demo's packages. Heads have random weights,
which costs what trained ones do.

1. **Clients as OpenRLHF's**: 64 at once, each sending a sample a request, beside one client that sends
   samples one after the other, both to one server process, in turns. Several
   rollouts share a prompt, each in a request of its own; in the last two cases no two share one.
2. **One client**: a request beside the forward pass of the same sample in the same process, in turns.
3. **8 responses to a prompt with an image** in one request, beside 8 requests.

Rewards of the server are compared with offline ones before anything is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from load import Connection, served
from PIL import Image

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine
from basereward.serving.runner import Runner

NUM_CLIENTS = 64
NUM_SAMPLES = 128
NUM_RESPONSES = 8
WORDS = tuple(
    [
        "the",
        "a",
        "cat",
        "dog",
        "bird",
        "sits",
        "runs",
        "on",
        "under",
        "red",
        "blue",
        "green",
        "hat",
        "mat",
        "house",
        "what",
        "is",
        "shown",
        "in",
        "it",
    ]
)

Sample = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """Samples of one shape; each word is a token."""

    num_rollouts: int  # responses to each prompt
    prompt_words: int
    response_words: int

    @property
    def name(self) -> str:
        """The name in tables."""
        kind = f"{self.num_rollouts} rollouts a prompt" if self.num_rollouts > 1 else "no prompt twice"
        return f"{kind}, p={self.prompt_words} r={self.response_words}"

    def samples(self, number: int, seed: int) -> list[Sample]:
        """Return pairs of prompt and response, those of one prompt after each other."""
        chance = random.Random(seed)
        prompts = [text(chance, self.prompt_words) for _ in range(number // self.num_rollouts)]
        return [
            (prompt, " " + text(chance, self.response_words))
            for prompt in prompts
            for _ in range(self.num_rollouts)
        ]


CASES = (Case(8, 160, 40), Case(16, 160, 40), Case(8, 460, 40), Case(1, 160, 40), Case(1, 20, 10))


def text(chance: random.Random, num_words: int) -> str:
    """Return words, each of which is a token."""
    return " ".join(chance.choice(WORDS) for _ in range(num_words))


def body_of(sample: Sample) -> bytes:
    """Return the body of OpenRLHF's client."""
    prompt, response = sample
    return json.dumps({"query": [prompt + response], "prompts": [prompt], "labels": [None]}).encode()


async def ask(
    port: int, samples: Sequence[Sample], num_clients: int
) -> tuple[float, list[float], list[float]]:
    """Send all samples by clients; return the total seconds, those of each request, and the rewards."""
    waiting = list(enumerate(map(body_of, samples)))[::-1]
    seconds, rewards = [0.0] * len(samples), [0.0] * len(samples)

    async def client() -> None:
        connection = Connection(port)
        while waiting:
            number, body = waiting.pop()
            start = time.perf_counter()
            status, answer = await connection.post("/get_reward", body)
            seconds[number] = time.perf_counter() - start
            if status != 200:
                raise SystemExit(f"{status}: {answer}")
            rewards[number] = answer["rewards"][0]
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(num_clients)))
    return time.perf_counter() - start, seconds, rewards


def check(rewards: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest difference of rewards; exit where it is above 1e-5."""
    difference = max(abs(mine - other) for mine, other in zip(rewards, expected, strict=True))
    if difference > 1e-5:
        raise SystemExit(f"rewards differ by {difference:.1e}; not timed")
    return difference


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of values; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def concurrent(directory: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure many clients beside one."""
    model = RewardModel.load(directory)
    rows = []
    for case in CASES:
        many = case.samples(NUM_SAMPLES, 0)
        few = many[:: NUM_SAMPLES // 16]
        with served(directory) as server:
            expected = model.score([Comparison(prompt, [response]) for prompt, response in few])
            _, _, rewards = asyncio.run(ask(server.port, few, NUM_CLIENTS))
            difference = check(rewards, [value for (value,) in expected])
            rates: dict[str, list[float]] = {"one": [], "many": []}
            latencies: dict[str, list[float]] = {"one": [], "many": []}
            for _ in range(repeats):
                for kind, samples, num_clients in (("one", few, 1), ("many", many, NUM_CLIENTS)):
                    seconds, each, _ = asyncio.run(ask(server.port, samples, num_clients))
                    rates[kind].append(len(samples) / seconds)
                    latencies[kind] += each
        ratio = statistics.median(b / a for a, b in zip(rates["one"], rates["many"], strict=True))
        rows.append(
            {
                "case": case.name,
                "clients": NUM_CLIENTS,
                "one_client_requests_a_second": statistics.median(rates["one"]),
                "requests_a_second": statistics.median(rates["many"]),
                "ratio": ratio,
                "p50_ms": 1e3 * percentile(latencies["many"], 0.5),
                "p99_ms": 1e3 * percentile(latencies["many"], 0.99),
                "one_client_p50_ms": 1e3 * percentile(latencies["one"], 0.5),
                "one_client_p99_ms": 1e3 * percentile(latencies["one"], 0.99),
                "max_difference": difference,
            }
        )
    return rows


def one_client(directory: Path, repeats: int) -> dict[str, Any]:
    """Measure a request beside the bare forward pass, preparation included in both."""
    engine = ModelEngine.load("model", directory, device="cpu")
    runner = Runner(Server([engine]), host="127.0.0.1", port=0)
    thread = threading.Thread(target=runner.run)
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    samples = Case(1, 160, 40).samples(repeats, 1)

    async def turns() -> tuple[list[float], list[float]]:
        connection = Connection(runner.bound_port)
        bare, asked = [], []
        for number, (prompt, response) in enumerate(samples):
            comparison = Comparison(prompt, [response])
            start = time.perf_counter()
            engine.model.score_prepared(engine.model.prepare_batch([comparison]))
            middle = time.perf_counter()
            await connection.post("/get_reward", body_of((prompt, response)))
            end = time.perf_counter()
            if number >= 5:
                bare.append(middle - start)
                asked.append(end - middle)
        connection.close()
        return bare, asked

    bare, asked = asyncio.run(turns())
    runner.should_exit = True
    thread.join()
    differences = [there - here for here, there in zip(bare, asked, strict=True)]
    return {
        "bare_ms": 1e3 * statistics.median(bare),
        "request_ms": 1e3 * statistics.median(asked),
        "overhead_ms": 1e3 * statistics.median(differences),
    }


def with_image(directory: Path, repeats: int) -> dict[str, Any]:
    """Measure N responses in one request beside N requests of one."""
    chance = random.Random(2)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (320, 240), chance.randbytes(320 * 240 * 3)).save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    prompt = text(chance, 160)
    responses = [text(chance, 40) for _ in range(NUM_RESPONSES)]

    def body(texts: Sequence[str]) -> bytes:
        return json.dumps({"items": [{"prompt": prompt, "responses": texts, "images": [image]}]}).encode()

    async def turns(port: int) -> tuple[list[float], list[float], list[float], list[float]]:
        connection = Connection(port)
        together: list[float] = []
        alone: list[float] = []
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            _, answer = await connection.post("/v1/rewards", body(responses))
            middle = time.perf_counter()
            singles = [(await connection.post("/v1/rewards", body([text])))[1] for text in responses]
            end = time.perf_counter()
            if repeat:
                together.append(middle - start)
                alone.append(end - middle)
        connection.close()
        separate = [single["data"][0]["rewards"][0] for single in singles]
        return together, alone, answer["data"][0]["rewards"], separate

    with served(directory) as server:
        together, alone, rewards, separate = asyncio.run(turns(server.port))
    return {
        "responses": NUM_RESPONSES,
        "one_request_ms": 1e3 * statistics.median(together),
        "requests_of_one_ms": 1e3 * statistics.median(alone),
        "ratio": statistics.median(b / a for a, b in zip(together, alone, strict=True)),
        "max_difference": check(rewards, separate),
    }


def main() -> None:
    """Measure everything and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each form (default 5)")
    parser.add_argument("--layers", type=int, default=4, help="of SmolLM2 (default 4)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="keep them for this machine, in results and docs")
    arguments = parser.parse_args()
    from basereward_mini import smollm2
    from transformers.utils import logging

    logging.disable_progress_bar()
    load_before = os.getloadavg()[0]
    print(f"fp32, {torch.get_num_threads()} threads, torch {torch.__version__}, load {load_before:.1f}")
    with tempfile.TemporaryDirectory() as directory:
        texts, images = Path(directory) / "texts", Path(directory) / "images"
        source = str(smollm2.directory(arguments.layers))
        RewardModel.build(backbone=Component("causal-lm", {"model": source})).save(texts)
        RewardModel.build(backbone=Component("mini-vlm", {"num_layers": arguments.layers})).save(images)
        many = concurrent(texts, arguments.repeats)
        for row in many:
            print(
                f"{row['clients']} clients, {row['case']}: {row['requests_a_second']:.1f} requests/s "
                f"(p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms); one client "
                f"{row['one_client_requests_a_second']:.1f} (p50 {row['one_client_p50_ms']:.0f} ms, "
                f"p99 {row['one_client_p99_ms']:.0f} ms): {row['ratio']:.2f}x",
                flush=True,
            )
        one = one_client(texts, 20 * arguments.repeats)
        print(
            f"one client: {one['request_ms']:.1f} ms a request, {one['bare_ms']:.1f} ms bare: "
            f"{one['overhead_ms']:+.2f} ms",
            flush=True,
        )
        group = with_image(images, 2 * arguments.repeats)
        print(
            f"{group['responses']} responses to an image: {group['one_request_ms']:.0f} ms in one request, "
            f"{group['requests_of_one_ms']:.0f} ms in {group['responses']}: {group['ratio']:.2f}x"
        )
    if arguments.output or arguments.keep:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "load_before": load_before,
        }
        command = f"python benchmarks/serving.py --repeats {arguments.repeats} --layers {arguments.layers}"
        results = {
            "machine": machine,
            "command": command,
            "concurrent": many,
            "one_client": one,
            "image": group,
        }
        import tables

        tables.save("serving", results, arguments.output, is_kept=arguments.keep)


if __name__ == "__main__":
    main()
