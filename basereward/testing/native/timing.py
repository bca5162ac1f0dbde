"""Time an op beside the code it replaces: all variants of a case in turns of random order within one run.

    def case(num_rows: int) -> Case:
        values = torch.randn(num_rows, 4096)
        variants = {"native": lambda: (my_op(values),), "eager": lambda: (my_twin(values),)}
        return Case(f"my op x {num_rows}", "native", variants, num_bytes=4 * values.numel())

    if __name__ == "__main__":
        keep_large_blocks()
        rates, rows = measure([partial(case, 64), partial(case, 4096)])

`measure` prints a line for each case: the medians, and the least time that its bytes and products take on
this machine. A case whose variants don't give equal results is not timed.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.testing import assert_close

from basereward.hardware.processor import product_flops

Run: TypeAlias = Callable[[], tuple[Tensor, ...]]

ALLOCATOR: Final = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}
BUDGET_SECONDS: Final = 6.0
MOST_SECONDS: Final = 10.0
"""A case whose products alone would take longer, one variant once, is left out: another machine times it."""
PRODUCT_SECONDS: Final = 5.0
SUM_NUMBERS: Final = 2**28
"""Of a sum in fp32: 1 GiB, more than any cache."""

MOST_TURNS: Final = 301
LEAST_TURNS: Final = 5


@dataclass(frozen=True)
class Case:
    """One op at one size.

    Attributes:
        name: The op and the size.
        ours: The variant that is ours.
        variants: What is timed, by name; all do the same work.
        num_bytes: What has to be read and written at least.
        num_flops: Of the matrix products.
        dtype: In which they are.
        tolerance: Up to which the variants' results are equal, relative to the largest value.
    """

    name: str
    ours: str
    variants: Mapping[str, Run]
    num_bytes: int
    num_flops: int = 0
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-5

    def check(self) -> None:
        """Compare the results of variants that return as many as ours.

        Raises:
            AssertionError: When they differ, so that a wrong op is not timed.
        """
        wanted = self.variants[self.ours]()
        for name, run in self.variants.items():
            actual = run()
            if len(actual) != len(wanted):  # a part of the work alone has other results
                continue
            for one, other in zip(wanted, actual, strict=True):
                scale = max(1e-30, other.abs().max().item())
                assert_close(
                    one.double() / scale,
                    other.double() / scale,
                    rtol=0,
                    atol=self.tolerance,
                    msg=partial("{}: {} differs from {}: {}".format, self.name, name, self.ours),
                )


def keep_large_blocks() -> None:
    """Start this program again with an allocator that keeps large blocks, unless it already runs so.

    A fresh block of 50 MB costs more in page faults than an op that fills it.
    """
    if os.environ.get("MALLOC_MMAP_MAX_") != "0":  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})


def measure(
    makers: Iterable[Callable[[], Case]], device: str = "cpu"
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Time cases, each made only when it is due, and print a line for each.

    Args:
        makers: Each makes a case, on torch's default device.
        device: Which that is, such as `cuda`.

    Returns:
        What `roofline` and, for each case that doesn't take minutes, `timed` return.

    Raises:
        AssertionError: When variants of a case differ.
    """
    finish = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    with torch.device(device):
        rates = roofline(finish)
    rows = []
    for make in makers:
        # A default device that lasts costs every call of torch some microseconds.
        with torch.device(device):
            case = make()
        least = floor({**vars(case), "dtype": str(case.dtype).removeprefix("torch.")}, rates)
        if least > MOST_SECONDS:
            print(f"{case.name:52} left out: its products alone take {shown(least)} here", flush=True)
            continue
        row = timed(case, finish)
        rows.append(row)
        times = "  ".join(f"{name} {shown(seconds)}" for name, seconds in row["seconds"].items())
        print(f"{row['case']:52} {times}  floor {shown(floor(row, rates))}", flush=True)
    return rates, rows


def timed(case: Case, finish: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Return the median seconds of each variant, taken in turns of random order, and their quartiles.

    Raises:
        AssertionError: When its variants differ.
    """
    case.check()
    names = list(case.variants)
    start = time.perf_counter()
    for name in names:
        case.variants[name]()
    finish()
    once = time.perf_counter() - start
    turns = max(LEAST_TURNS, min(MOST_TURNS, int(BUDGET_SECONDS / once)))
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    gc.collect()
    gc.disable()
    for _ in range(turns):
        for name in order.sample(names, len(names)):
            run = case.variants[name]
            start = time.perf_counter()
            result = run()
            finish()
            times[name].append(time.perf_counter() - start)
            del result
    gc.enable()
    return {
        "case": case.name,
        "turns": turns,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "quartiles": {name: statistics.quantiles(values, n=4)[::2] for name, values in times.items()},
        "num_bytes": case.num_bytes,
        "num_flops": case.num_flops,
        "dtype": str(case.dtype).removeprefix("torch."),
    }


def roofline(finish: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Return the device's peak rates: bytes/s of a large sum, FLOP/s of a large product in each dtype.

    The product is as large as it can be in about `PRODUCT_SECONDS`, since where bf16 is emulated one of 4096
    x 4096 takes minutes.
    """
    large = torch.ones(SUM_NUMBERS)
    large.sum()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        large.sum()
        finish()
        times.append(time.perf_counter() - start)
    rates = {"bytes": large.numel() * 4 / min(times)}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        rates[name] = product_flops(dtype, large.device, seconds=PRODUCT_SECONDS, largest=4096)
    return rates


def floor(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """Return the least seconds that the bytes and the products of a case need."""
    return max(float(row["num_bytes"]) / rates["bytes"], float(row["num_flops"]) / rates[row["dtype"]])


def shown(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def machine(build: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the machine and the build that results were measured on.

    Args:
        build: How the kernels were built, from `Library.status`.
    """
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    head = ["git", "-C", str(Path(sys.argv[0]).resolve().parent), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False)
    return {
        "command": " ".join(sys.argv),
        "platform": platform.platform(),
        "processor": processor,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "build": {name: part["build"] for name, part in build.items()},
        "allocator": {name: os.environ.get(name, "") for name in ALLOCATOR},
    }
