"""Time two checkouts of BaseReward in turns: a training step, a scored comparison, a request to the server.

Run as `python benchmarks/revisions.py OLD NEW`, where both are directories of checkouts whose native ops are
built for this Python, or not built in both. They take turns, so that a noisy machine disturbs both alike; the
result is the ratio, NEW over OLD, of the medians of their turns. Where a Llama of 26M parameters computes,
the framework's own work hardly shows; the backbone `tiny` shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BACKBONES = ("llama", "tiny")
BATCH_SIZE = 8
WARM_UP = 2
NUM_STEPS = {"llama": 6, "tiny": 40}
NUM_COMPARISONS = {"llama": 16, "tiny": 160}
WORDS = {"llama": (150, 40), "tiny": (8, 4)}  # of a prompt and of a response; `tiny` reads bytes
NUM_REQUESTS = 60


def write_inputs(directory: Path) -> None:
    """Write the Llama and the pairs that both checkouts train on and score."""
    from against_trl import pairs_of_lengths, save_model, write_pairs

    save_model(directory / "llama")
    for name, lengths in WORDS.items():
        write_pairs(pairs_of_lengths(400, *lengths), directory / f"{name}.jsonl")


def backbone_table(name: str, directory: Path) -> str:
    """Return a backbone as a run file has it."""
    if name == "tiny":
        return '[backbone]\nname = "tiny"\n'
    return f'[backbone]\nname = "causal-lm"\nmodel = "{directory / name}"\n'


def seconds_a_step(name: str, inputs: Path, output: Path) -> float:
    """Train, and return seconds a step after the first ones."""
    from basereward.config import load_run

    try:
        from basereward import train
    except ImportError:  # an older checkout
        from basereward.engine import train

    run_file = output / f"{name}.toml"
    run_file.write_text(
        f'output = "{output / name}"\nhead = "mlp"\n{backbone_table(name, inputs)}'
        f'[[data.train]]\nname = "trl"\npath = "{inputs / name}.jsonl"\n'
        f"[train]\nmax_steps = {NUM_STEPS[name]}\nepochs = 100.0\nbatch_size = {BATCH_SIZE}\n"
        'lr = 1e-4\nlog_every = 1\nsave_every = 1000000\nprecision = "fp32"\n'
    )
    train(load_run(run_file), overwrite=True, progress=False)
    lines = (output / name / "log.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return (steps[-1]["seconds"] - steps[WARM_UP - 1]["seconds"]) / (len(steps) - WARM_UP)


def scorer(name: str, inputs: Path) -> Callable[[], float]:
    """Return a function that scores comparisons and returns seconds a comparison."""
    from basereward import Comparison, RewardModel
    from basereward.config import Component

    options = {} if name == "tiny" else {"model": str(inputs / name)}
    model = RewardModel.build(backbone=Component("tiny" if name == "tiny" else "causal-lm", options))
    lines = (inputs / f"{name}.jsonl").read_text().splitlines()[: NUM_COMPARISONS[name]]
    comparisons = [
        Comparison(row["prompt"], [row["chosen"], row["rejected"]]) for row in map(json.loads, lines)
    ]

    def measure() -> float:
        start = time.perf_counter()
        model.score(comparisons, batch_size=BATCH_SIZE)
        return (time.perf_counter() - start) / len(comparisons)

    return measure


def work(inputs: Path, output: Path) -> None:
    """Answer each line of standard input, the name of a measurement, with its seconds."""
    from basereward import RewardModel
    from basereward.config import Component

    RewardModel.build(backbone=Component("tiny")).save(output / "served")
    scorers = {name: scorer(name, inputs) for name in BACKBONES}
    print("ready", flush=True)
    for line in sys.stdin:
        what, name = line.split()
        value = seconds_a_step(name, inputs, output) if what == "step" else scorers[name]()
        print(value, flush=True)


class Revision:
    """A checkout: a process that trains and scores with it, and a server.

    Args:
        checkout: Its directory.
        inputs: Where the model and the pairs are.
        output: Where it may write.
    """

    def __init__(self, checkout: Path, inputs: Path, output: Path) -> None:
        output.mkdir()
        threads = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # one thread: a busy machine disturbs it less
        self._environment = {**os.environ, **threads, "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--work", str(inputs), str(output)]
        self._log = (output / "stderr").open("w")
        self._worker = self._start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._ask()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        serve = [sys.executable, "-P", "-m", "basereward", "serve", str(output / "served")]
        self._server = self._start([*serve, "--port", str(self._port)], stdout=subprocess.DEVNULL)
        self._wait_for_server()

    def measure(self, what: str, name: str) -> float:
        """Return seconds of a training step, a scored comparison or a request."""
        if what == "request":
            return self._request()
        assert self._worker.stdin is not None
        self._worker.stdin.write(f"{what} {name}\n")
        self._worker.stdin.flush()
        return float(self._ask())

    def close(self) -> None:
        """End the processes."""
        for process in (self._worker, self._server):
            process.terminate()
            process.wait()
        self._log.close()

    def _start(self, command: list[str], **pipes: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, env=self._environment, stderr=self._log, text=True, **pipes)

    def _ask(self) -> str:
        assert self._worker.stdout is not None
        if answer := self._worker.stdout.readline():
            return answer
        raise SystemExit(Path(self._log.name).read_text())

    def _wait_for_server(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.2)
        raise SystemExit(Path(self._log.name).read_text())

    def _request(self) -> float:
        chance = random.Random(0)
        seconds = []
        for _ in range(NUM_REQUESTS):
            words = [f"w{chance.randrange(4096)}" for _ in range(60)]
            item = {
                "prompt": " ".join(words[:40]),
                "responses": [" ".join(words[40:50]), " ".join(words[50:])],
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{self._port}/v1/rewards",
                json.dumps({"items": [item]}).encode(),
                {"Content-Type": "application/json"},
            )
            start = time.perf_counter()
            with urllib.request.urlopen(request) as reply:
                reply.read()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


@contextlib.contextmanager
def revisions(checkouts: list[Path]) -> Iterator[list[Revision]]:
    """Start the processes of checkouts, and end them."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        inputs = Path(temporary) / "inputs"
        inputs.mkdir()
        write_inputs(inputs)
        made = []
        for number, checkout in enumerate(checkouts):
            made.append(Revision(checkout.resolve(), inputs, Path(temporary) / str(number)))
            stack.callback(made[-1].close)
        yield made


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", metavar="OLD NEW", type=Path, nargs=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.checkouts)
        return
    kinds = [(what, name) for what in ("step", "score") for name in BACKBONES] + [("request", "tiny")]
    seconds: dict[tuple[str, str], list[list[float]]] = {kind: [[], []] for kind in kinds}
    with revisions(args.checkouts) as (old, new):
        for turn in range(args.turns + 1):  # the first warms up
            for kind in kinds:
                pair = [(0, old), (1, new)] if turn % 2 else [(1, new), (0, old)]
                values = [(place, revision.measure(*kind)) for place, revision in pair]
                if turn:
                    for place, value in values:
                        seconds[kind][place].append(value)
                    print(turn, *kind, round(dict(values)[1] / dict(values)[0], 3), file=sys.stderr)
    rows = []
    for (what, name), values in seconds.items():
        before, after = map(statistics.median, values)
        ratios = sorted(late / early for early, late in zip(*values, strict=True))
        rows.append({"what": what, "backbone": name, "old_seconds": before, "new_seconds": after,
                     "ratio": after / before, "ratios_of_turns": ratios})  # fmt: skip
        print(
            f"{what:8} {name:6} {before * 1e3:9.3f} ms {after * 1e3:9.3f} ms   ratio {after / before:.3f}"
            f"   (turns {ratios[0]:.3f} to {ratios[-1]:.3f}, median {statistics.median(ratios):.3f})"
        )
    if args.output:
        facts = {"machine": platform.processor() or platform.machine(), "turns": args.turns, "rows": rows}
        args.output.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
