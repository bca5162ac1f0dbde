"""Run the fuzz targets: `python tests/fuzz/run.py [TARGET ...] --seconds 600`, or `make fuzz`.

A target is a file beside this one, with

    SEEDS   inputs to begin with, bytes each
    TOKENS  pieces that mutations insert
    check   takes an input; only the project's own errors may leave what it calls, and it catches those

An input after which something else leaves `check`, or which takes more than `MAX_SECONDS`, is a finding. It
is written to `corpus/TARGET`, whose files the tests replay. Inputs are mutated by coverage with atheris where
it is installed (`pip install atheris`), else blindly.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PLACE = Path(__file__).parent
CORPUS = PLACE / "corpus"
MAX_SECONDS = 20
MAX_INPUT = 1 << 16
"""Bytes that a mutated input may have."""


class Target(NamedTuple):
    """A target: see this file's first lines."""

    name: str
    check: Callable[[bytes], object]
    seeds: list[bytes]
    tokens: list[bytes]


class TookTooLong(Exception):
    """A check that has not returned in time."""


def names() -> list[str]:
    """Return the names of all targets."""
    files = sorted(path for path in PLACE.glob("*.py") if not path.name.startswith(("run.", "test_")))
    return [path.stem for path in files]


def load(name: str) -> Target:
    """Return a target, with its corpus among its seeds."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", PLACE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return Target(name, module.check, [*module.SEEDS, *found], list(module.TOKENS))


def mutated(chance: random.Random, target: Target) -> bytes:
    """Return one of the target's seeds after a few mutations."""
    data = bytearray(chance.choice(target.seeds))
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice((1, 2, 4, 16, 256)))
        kind = chance.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 100))
        elif kind == 4 and target.tokens:
            data[at:at] = chance.choice(target.tokens)
        elif kind == 5:
            del data[at:]
        else:
            other = chance.choice(target.seeds)
            data[at:] = other[chance.randint(0, len(other)) :]
    return bytes(data[:MAX_INPUT])


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TookTooLong` where the block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TookTooLong(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz_blindly(target: Target, seconds: float, seed: int) -> tuple[int, int]:
    """Return how many inputs were tried, and how many of them are findings."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    num_tried, found = 0, set()
    while time.monotonic() < end:
        data = mutated(chance, target)
        num_tried += 1
        try:
            with time_limit(MAX_SECONDS):
                target.check(data)
        except Exception as error:
            place = (type(error).__name__, *traceback.extract_tb(error.__traceback__)[-1][:2])
            if place not in found:
                found.add(place)
                traceback.print_exc()
                print(f"{target.name}: {_keep(target.name, data)}", flush=True)
    return num_tried, len(found)


def fuzz_by_coverage(target: Target, seconds: float, seed: int) -> tuple[int, int]:
    """Return the same, of atheris in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        for number, data in enumerate(target.seeds):
            (Path(place) / f"seed-{number}").write_bytes(data)
        artifacts = Path(place, "found")
        artifacts.mkdir()
        num_tried, found, end = 0, set(), time.monotonic() + seconds
        while (left := int(end - time.monotonic())) > 0:
            options = [
                f"-max_total_time={left}",
                f"-seed={seed}",
                f"-timeout={MAX_SECONDS}",
                "-rss_limit_mb=6000",
            ]
            options += ["-print_final_stats=1", f"-max_len={MAX_INPUT}", f"-artifact_prefix={artifacts}/"]
            command = [sys.executable, __file__, "--atheris", target.name, *options, place]
            done = subprocess.run(command, capture_output=True, text=True)
            tried = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
            num_tried += int(tried[-1]) if tried else 0
            if done.returncode == 0:
                break
            seed += 1
            for path in artifacts.iterdir():
                found.add(_keep(target.name, path.read_bytes()))
                path.unlink()
            print(done.stdout + done.stderr[-4000:], flush=True)
    return num_tried, len(found)


def _run_atheris(name: str, options: Sequence[str]) -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["basereward", "zipfile", "json", "PIL", f"fuzz_{name}"]):
        target = load(name)
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


def _keep(name: str, data: bytes) -> Path:
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run targets, and print for each what was tried and found; 1 where something was found."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--seconds", type=float, default=600.0, help="for all together (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--blind", action="store_true", help="don't use atheris")
    args = parser.parse_args(arguments)
    is_blind = args.blind or importlib.util.find_spec("atheris") is None
    chosen = args.targets or names()
    results = {}
    for name in chosen:
        run = fuzz_blindly if is_blind else fuzz_by_coverage
        num_tried, num_found = run(load(name), args.seconds / len(chosen), args.seed)
        results[name] = {"executions": num_tried, "findings": num_found}
        print(f"{name}: {num_tried:,} executions, {num_found} findings", flush=True)
    print(json.dumps({"engine": "blind" if is_blind else "atheris", **results}))
    return int(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--atheris"]:
        _run_atheris(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
