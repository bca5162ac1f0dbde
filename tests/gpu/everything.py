"""The first ten minutes on a GPU, most valuable first: `make gpu`, or `python tests/gpu/everything.py`.

Needs torch, a checkout and a GPU, and no network. Each step is a process of its own with a limit of its own;
a step that fails or is too slow ends alone. Records are appended to `results.jsonl` as they come, and what a
step prints goes to `STEP.log` beside it; so nothing is lost when the machine is. Without a CUDA device it
says so and ends well.

`--dry` runs the code of every step on the CPU, at tiny sizes; its records are marked as no measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, Final, TextIO

ROOT = Path(__file__).parents[2]
STEPS_FILE = Path(__file__).with_name("steps.py")
MOST_SECONDS: Final = 570.0

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Also of the function in steps.py, where there is no command.
        seconds: After which it is ended.
        question: What it answers.
        kernels: Value of BASEREWARD_KERNELS.
        command: What is run instead; empty for the function.
        dry_command: What is run instead of that on a CPU.
    """

    name: str
    seconds: float
    question: str
    kernels: str = "auto"
    command: Sequence[str] = ()
    dry_command: Sequence[str] = ()


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "120", "tests/gpu")
MEASURE = (sys.executable, "benchmarks/ops/measure.py", "--cases")
SANITIZER = ("compute-sanitizer", "--error-exitcode", "9", "--kernel-name", "kernel_substring=basereward")
ONE_CALL = (sys.executable, str(STEPS_FILE), "ops_once")

BUILD = Step(
    "build",
    150,
    "do the CUDA kernels compile here",
    command=(sys.executable, "setup.py", "build_ext", "--inplace"),
    dry_command=(sys.executable, "setup.py", "build_ext", "--help"),
)
STEPS = (
    Step("machine", 40, "versions, and the speeds that others are shares of"),
    Step("models", 100, "is the model right on the device, against fp64 on the CPU", kernels="torch"),
    Step(
        "ops_tests",
        60,
        "are the ops right",
        command=(*PYTEST, "-x", "-k", "not compiles"),
        dry_command=(*PYTEST, "--collect-only"),
    ),
    Step("waits", 30, "where does a pass wait for the device"),
    Step("attention", 110, "the time and memory of each form of attention on four batches, 7B shapes"),
    Step("vision", 40, "the vision tower: kernels and time beside sdpa"),
    Step("scoring", 60, "pairs a second in fp32, TF32 and bf16, and what precision changes"),
    Step("training", 90, "a whole training; are the bytes the same again, with and without `deterministic`"),
    Step("sharded", 40, "does FSDP2 start, step and save on one GPU"),
    Step(
        "ops_times",
        60,
        "the ops beside what they replace",
        command=(*MEASURE, "BT loss", "--device", "cuda"),
        dry_command=(*MEASURE, "lean_bt_loss 8"),
    ),
    *(
        Step(
            tool,
            60,
            f"does {tool} find anything in the kernels",
            command=(*SANITIZER, "--tool", tool, *ONE_CALL),
            dry_command=(*ONE_CALL, "--dry"),
        )
        for tool in ("memcheck", "racecheck")
    ),
)


class Records:
    """The file that records are appended to, each on the disk before anything else is done."""

    def __init__(self, directory: Path, *, dry: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.dry = directory, dry
        self._file = (directory / "results.jsonl").open("a", encoding="utf-8")

    def add(self, step: str, facts: dict[str, Any]) -> None:
        """Append one."""
        mark = {"no_measurement": "a dry run on a CPU at tiny sizes"} if self.dry else {}
        self._file.write(json.dumps({"step": step, **mark, **facts}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Running:
    """A step that has been started."""

    def __init__(self, step: Step, records: Records, limit: float) -> None:
        self.step, self.records, self.limit = step, records, limit
        command = list(step.command or (sys.executable, str(STEPS_FILE), step.name))
        if records.dry:
            command = list(step.dry_command) or [*command, "--dry"]
        self._start = time.monotonic()
        self._log: TextIO = (records.directory / f"{step.name}.log").open("w", encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None
        self._is_late = False
        if shutil.which(command[0]) is None:
            self._log.write(f"there is no {command[0]}\n")
            return
        paths = [str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            **OFFLINE,
            "BASEREWARD_KERNELS": step.kernels,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **({} if records.dry or step is not BUILD else {"BASEREWARD_BUILD_CUDA": "1"}),
        }
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._timer = Timer(self.limit, self._end)
        self._timer.start()

    def _end(self) -> None:
        assert self._process is not None
        self._is_late = True
        os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self) -> str:
        """Record what comes, and return how the step ended."""
        name = self.step.name
        if self._process is None:
            outcome = "skipped"
        else:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self._log.write(line)
                self._log.flush()
                if line.startswith("{"):
                    self.records.add(name, json.loads(line))
            status = self._process.wait()
            self._timer.cancel()
            outcome = "passed" if status == 0 else f"failed with exit status {status}"
            if self._is_late:
                outcome = f"ended after {self.limit:.0f} s"
        self._log.close()
        seconds = time.monotonic() - self._start
        self.records.add(name, {"outcome": outcome, "seconds": round(seconds, 1)})
        print(f"{name}: {outcome}, {seconds:.0f} s ({self.step.question})", flush=True)
        return outcome


def main() -> int:
    """Run the steps, whatever the others did; return 1 if one has not passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("OUT") or str(ROOT / ".benchmarks" / "gpu")
    parser.add_argument("--output", default=default, metavar="DIR", help="default: $OUT, or .benchmarks/gpu")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at tiny sizes: no measurement")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="of all steps together")
    parser.add_argument("--patience", type=float, default=1.0, help="what each step's limit is multiplied by")
    parser.add_argument("--steps", nargs="+", default=[], metavar="STEP", help="only these")
    arguments = parser.parse_args()
    known = [BUILD.name, *(step.name for step in STEPS)]
    if unknown := sorted(set(arguments.steps) - set(known)):
        parser.error(f"there is no step {unknown[0]}; allowed: {', '.join(known)}")
    if not arguments.dry:
        import torch

        if not torch.cuda.is_available():
            print("skipped: there is no CUDA device; --dry runs the steps' code on the CPU")
            return 0
    end = time.monotonic() + arguments.seconds
    records = Records(Path(arguments.output), dry=arguments.dry)
    wanted = set(arguments.steps or known)
    outcomes = []
    # Compiling takes other processors than the next steps, which do without the kernels.
    building = Running(BUILD, records, BUILD.seconds * arguments.patience) if BUILD.name in wanted else None
    for step in STEPS:
        if building is not None and step.kernels == "auto" and step.name != "machine":
            outcomes.append(building.finish())
            building = None
        if step.name not in wanted:
            continue
        left = end - time.monotonic()
        if left < 1:
            records.add(step.name, {"outcome": "no time was left"})
            print(f"{step.name}: no time was left", flush=True)
            outcomes.append("no time was left")
            continue
        limit = min(step.seconds * arguments.patience, left)
        outcomes.append(Running(step, records, limit).finish())
    if building is not None:
        outcomes.append(building.finish())
    print(f"records: {records.directory / 'results.jsonl'}")
    return int(any(outcome not in ("passed", "skipped") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
