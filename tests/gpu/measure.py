"""Records, times and peaks of memory that the steps of everything.py share."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() and "--dry" not in sys.argv else "cpu"


def record(**facts: Any) -> None:
    """Print a record."""
    print(json.dumps(facts), flush=True)


def wait() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a call, after two that are not counted."""
    times = []
    for number in range(repeats + 2):
        wait()
        start = time.perf_counter()
        run()
        wait()
        if number > 1:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


@contextmanager
def peak(facts: dict[str, Any]) -> Iterator[None]:
    """Add the most memory that a block takes."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield
    if DEVICE == "cuda":
        facts["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
