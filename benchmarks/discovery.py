"""Time the discovery of plugins: the time of `basereward --help` with none, six and 24 of them.

Run as `python benchmarks/discovery.py`. The plugins are distributions of `basereward new-plugin`, each with a
part of every kind, a command and a logger, installed into a directory of their own. The numbers of plugins
take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from basereward.cli.new_plugin import PARTS, write

NUMBERS = (0, 1, 6, 24)
DISCOVER = """
import time
from basereward.plugins import PluginManager
start = time.perf_counter()
plugins = PluginManager(discover=True)
print(time.perf_counter() - start, len(plugins.loaded) - 1)
"""


def install(directory: Path, num: int) -> Path:
    """Install so many new plugins into a directory, and return it."""
    target = directory / f"with-{num}"
    target.mkdir()
    sources = [write(f"number-{number}", PARTS, directory / f"sources-{num}") for number in range(num)]
    if sources:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--disable-pip-version-check", "--no-index", "--target", str(target), *map(str, sources)]
        subprocess.run(command, check=True)
    return target


def run(target: Path, *arguments: str) -> tuple[float, float, str]:
    """Run Python beside the installed plugins; return the seconds, those of the CPU, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    """Measure in turns, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    helps: dict[int, list[float]] = {num: [] for num in NUMBERS}
    busy: dict[int, list[float]] = {num: [] for num in NUMBERS}
    finds: dict[int, list[float]] = {num: [] for num in NUMBERS}
    with tempfile.TemporaryDirectory() as directory:
        targets = {num: install(Path(directory), num) for num in NUMBERS}
        others = {int(run(target, "-c", DISCOVER)[2].split()[1]) - num for num, target in targets.items()}
        [num_others] = others  # whatever is installed beside them
        for target in targets.values():
            run(target, "-m", "basereward", "--help")
        for _ in range(arguments.turns):
            for num, target in targets.items():
                seconds, of_cpu, _ = run(target, "-m", "basereward", "--help")
                helps[num].append(seconds)
                busy[num].append(of_cpu)
                finds[num].append(float(run(target, "-c", DISCOVER)[2].split()[0]))
    results = []
    for num in NUMBERS:
        more = num - NUMBERS[0]
        each = [(own - none) / max(more, 1) for own, none in zip(finds[num], finds[0], strict=True)]
        row = {
            "num_plugins": num + num_others,
            "help_seconds": statistics.median(helps[num]),
            "help_seconds_min": min(helps[num]),
            "help_cpu_seconds": statistics.median(busy[num]),
            "discovery_seconds": statistics.median(finds[num]),
            "seconds_a_plugin": statistics.median(each) if more else None,
        }
        results.append(row)
        each_ms = f"{1000 * row['seconds_a_plugin']:.2f} ms a plugin" if row["seconds_a_plugin"] else ""
        print(
            f"{row['num_plugins']:3} plugins: --help {row['help_seconds']:.3f} s (least "
            f"{row['help_seconds_min']:.3f}, {row['help_cpu_seconds']:.3f} of the CPU), "
            f"discovery {1000 * row['discovery_seconds']:.1f} ms  {each_ms}"
        )
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "command": " ".join(sys.argv),
        }
        arguments.output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
