"""How OpenMP's threads should wait: a training step and a scoring pass under each way, quiet or loaded.

Run as `python benchmarks/threads.py`, on a machine with nothing else to do; `--load N` computes N busy
processes beside it. Each way is a process of its own, since OpenMP reads its variables when it is loaded;
all take turns, so that a noisy machine disturbs them alike. `tokenizing` adds a Python thread that works
beside the passes, as the one that prepares the next batch does in training and scoring; `commands` lets it
and the passes take turns as commands do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 100": {"GOMP_SPINCOUNT": "100"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "commands": {"GOMP_SPINCOUNT": "1000", "SWITCH": "short"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Names, and variables of the environment; `SWITCH` is this benchmark's own."""

VARIABLES = {name for way in WAYS.values() for name in way} | {"KMP_BLOCKTIME"}
WORK = ("train", "score", "score, tokenizing")


def work(seconds: float) -> None:
    """Compute a turn for each line of standard input, and write the passes a second of each kind of work."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    from basereward.hardware.threads import shorten_turns

    if "SWITCH" in os.environ:
        shorten_turns()
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "num_key_value_heads": 4}
    model = LlamaModel(LlamaConfig(vocab_size=1000, num_hidden_layers=4, **sizes))
    ids = torch.randint(0, 1000, (4, 128))

    def train() -> None:
        model(input_ids=ids).last_hidden_state.sum().backward()
        model.zero_grad()

    def score() -> None:
        with torch.inference_mode():
            model(input_ids=ids)

    stopped = threading.Event()

    def tokenize() -> None:
        while not stopped.is_set():
            sum(hash(str(number)) for number in range(1000))

    for call in (train, score):
        call()
    for _ in sys.stdin:
        rates = {}
        for name, call in zip(WORK, (train, score, score), strict=True):
            thread = threading.Thread(target=tokenize)
            stopped.clear()
            if "tokenizing" in name:
                thread.start()
            began, num = time.perf_counter(), 0
            while (passed := time.perf_counter() - began) < seconds:
                call()
                num += 1
            stopped.set()
            if thread.ident is not None:
                thread.join()
            rates[name] = num / passed
        print(json.dumps(rates), flush=True)


def _spin() -> None:
    while True:
        sum(range(100000))


def measure(names: list[str], turns: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return for each way the median passes a second of each kind of work."""
    rest = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--worker", str(seconds)],
            env={**rest, **WAYS[name]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(turns + 1):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            line = json.loads(worker.stdout.readline())
            if turn:  # the first warms up
                rates[name].append(line)
    for worker in workers.values():
        worker.communicate()
    return {
        name: {kind: statistics.median(turn[kind] for turn in found) for kind in WORK}
        for name, found in rates.items()
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="default: all")
    parser.add_argument("--turns", type=int, default=7, help="turns of each way (default 7)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each kind of work in a turn (default 1)"
    )
    parser.add_argument("--load", type=int, default=0, metavar="N", help="busy processes beside (default 0)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="keep them for this machine, in results and docs")
    parser.add_argument("--worker", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(arguments.load)]
    for process in busy:
        process.start()
    before = os.getloadavg()[0]
    results: dict[str, Any] = measure(arguments.ways, arguments.turns, arguments.seconds)
    for process in busy:
        process.terminate()
    base = results.get("default", next(iter(results.values())))
    print(f"{arguments.load} busy processes beside, load {before:.1f} before; passes a second, over default")
    print(f"{'':12}" + "".join(f"{kind:>26}" for kind in WORK))
    for name, rates in results.items():
        cells = (f"{rates[kind]:>16.1f} ({rates[kind] / base[kind]:>5.2f})" for kind in WORK)
        print(f"{name:12}" + "  ".join(["", *cells]))
    if arguments.output or arguments.keep:
        found = {"load": arguments.load, "load_average_before": before, "results": results}
        import tables

        tables.save("threads", found, arguments.output, is_kept=arguments.keep)


if __name__ == "__main__":
    main()
