"""Time a newcomer's first hour: clone, `make demo` to its first training line, README's quickstart, `--help`.

`python benchmarks/first_hour.py` clones this checkout's last commit twice, into directories that are removed.
In one, `make demo` runs until its first line of a training step. In the other, the two blocks of README.md's
"Install and first model" are typed line by line into a new environment; a tiny model of random weights stands
in for Qwen2.5-VL-3B-Instruct. Packages that pip's cache lacks are downloaded. `--keep` writes the results
beside those of other benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import machines

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"^step \d+/\d+: loss ")
"""A training's line for a step."""

SIZE = re.compile(r"== (\d+) packages, ([\d,]+) MB")
"""What benchmarks/install_size.py prints."""

STAND_IN = """
import sys, torch, tiny
from pathlib import Path
torch.manual_seed(0)
tiny.save_qwen_vl(Path("Qwen2.5-VL-3B-Instruct"), "qwen2_5_vl")
tiny.image().save("cat.png")
"""
"""Writes the files that the README's commands name, with the tests' tiny models."""

ROW = {
    "id": "1",
    "prompt": "What is <image>?",
    "images": ["cat.png"],
    "responses": ["a cat", "a dog"],
    "ranks": [0, 1],
}


def clean_environment() -> dict[str, str]:
    """Return the variables of this process without those that would lead to this checkout."""
    left_out = ("PYTHON", "BASEREWARD_", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def clone(directory: Path) -> float:
    """Clone the last commit, and return the seconds that it took."""
    start = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", ROOT, directory], check=True)
    return time.perf_counter() - start


def demo(directory: Path) -> dict[str, Any]:
    """Return how long `make demo` takes to its first training line, and what it installs; then stop it.

    Raises:
        RuntimeError: When it ends before that line.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        ["make", "demo"],
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    said: list[str] = []
    report: dict[str, Any] = {}
    try:
        for line in process.stdout:
            said.append(line)
            if size := SIZE.match(line):
                report["set_up_seconds"] = time.perf_counter() - start
                report["packages"], report["megabytes"] = int(size[1]), int(size[2].replace(",", ""))
            if line.startswith("training: 0/"):
                report["training_starts_seconds"] = time.perf_counter() - start
            if STEP.match(line):
                report["first_training_line_seconds"] = time.perf_counter() - start
                report["line"] = line.strip()
                return report
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
        process.communicate()
    raise RuntimeError(f"make demo ended before its training:\n{''.join(said[-30:])}")


def quickstart(checkout: Path) -> list[dict[str, Any]]:
    """Return the README's commands of "Install and first model" with the seconds that each took.

    Raises:
        RuntimeError: When one fails; it has what the command printed.
    """
    environment = clean_environment()
    venv.create(checkout / ".venv", with_pip=True)
    environment["PATH"] = os.pathsep.join([str(checkout / ".venv" / "bin"), environment["PATH"]])
    environment["PIP_CONSTRAINT"] = str(checkout / "constraints.txt")

    def typed(*command: str) -> float:
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return time.perf_counter() - start

    text = (checkout / "README.md").read_text(encoding="utf-8").partition("## Install and first model")[2]
    install, use = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)[:2]
    report = []
    for block in (install, use):
        for command in block.splitlines():
            seconds = typed("bash", "-c", command)
            report.append({"command": command.partition(" #")[0].strip(), "seconds": seconds})
        if block is install:
            tiny = f"import sys; sys.path.insert(0, {str(checkout / 'tests' / 'support')!r})"
            typed("python", "-c", tiny + STAND_IN)
            for name in ("pairs", "held-out"):
                (checkout / f"{name}.jsonl").write_text(f"{json.dumps(ROW)}\n" * 8, encoding="utf-8")
    return report


def time_help(rounds: int) -> dict[str, float]:
    """Return the median times of `basereward --help` by this Python: by the clock, and of the processor.

    The second one is that of an idle machine, wherever other work is on this one.
    """
    command = [sys.executable, "-m", "basereward", "--help"]
    by_clock, of_processor = [], []
    for _ in range(rounds + 2):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        by_clock.append(time.perf_counter() - start)
        of_processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        "help_seconds": statistics.median(by_clock[2:]),
        "help_processor_seconds": statistics.median(of_processor[2:]),
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep", action="store_true", help="write benchmarks/results/MACHINE/first_hour.json"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report: dict[str, Any] = dict(time_help(20))
        report["clone_seconds"] = clone(Path(temporary, "demo"))
        report["demo"] = demo(Path(temporary, "demo"))
        clone(Path(temporary, "quickstart"))
        report["quickstart"] = quickstart(Path(temporary, "quickstart"))
    print(json.dumps(report, indent=1))
    if arguments.keep:
        print(f"written to {machines.keep('first_hour', report)}")


if __name__ == "__main__":
    main()
