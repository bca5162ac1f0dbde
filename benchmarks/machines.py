"""Results by machine: `benchmarks/results/NAME/BENCHMARK.json`, the name being that of its features.

`machine.json` beside them has the machine's title, which may be edited.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FACTS = "machine.json"


def kept(benchmark: str, results: Path = RESULTS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the title of each machine that a benchmark was kept of, and the results."""
    for path in sorted(results.glob(f"*/{benchmark}.json")):
        facts = json.loads((path.parent / FACTS).read_text(encoding="utf-8"))
        title = f"`{path.parent.name}`: {facts['title']}"
        yield title, json.loads(path.read_text(encoding="utf-8"))


def path_of(benchmark: str, results: Path = RESULTS) -> Path:
    """Return the file of a benchmark's results on this machine, whose directory is made."""
    from basereward.hardware.processor import machine_name

    directory = results / machine_name()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / FACTS).is_file():
        (directory / FACTS).write_text(json.dumps(_facts(), indent=2) + "\n", encoding="utf-8")
    return directory / f"{benchmark}.json"


def keep(benchmark: str, report: Mapping[str, Any], results: Path = RESULTS) -> Path:
    """Write a benchmark's results of this machine, with the load while they were taken."""
    path = path_of(benchmark, results)
    text = json.dumps({**report, "load_average": os.getloadavg()[0]}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _facts() -> dict[str, Any]:
    import torch

    from basereward.hardware.precision import device_of

    device = device_of()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    limits = [
        f"{name}={os.environ[name]}"
        for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
        if name in os.environ
    ]
    return {
        "title": ", ".join([name, f"{torch.get_num_threads()} threads", *limits]),
        "platform": platform.platform(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )
