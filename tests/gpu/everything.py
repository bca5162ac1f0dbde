"""All that needs a GPU, in one go: compute-sanitizer, the tests of the ops, the benchmarks; `make gpu`.

Without a CUDA device it says so and ends well. It leaves ops-cuda.json in benchmarks/results, in the GPU's
directory, and prints a line for each step.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = [sys.executable, "-m", "pytest", "-q", "tests/gpu"]
# Compiling and capturing take a sanitizer hours, and are no kernels of ours.
SANITIZED = [*TESTS, "-p", "no:cacheprovider", "--timeout", "3000", "-k", "reference or bit_equal or crash"]
SANITIZER = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--tool"]
STEPS = {
    **{tool: [*SANITIZER, tool, *SANITIZED] for tool in ("memcheck", "racecheck", "initcheck", "synccheck")},
    "tests": [*TESTS, "tests/ops"],
    "benchmarks": [sys.executable, "benchmarks/ops/measure.py", "--device", "cuda"],
}


def main() -> int:
    """Run every step, whatever the others did; return 1 if one has failed."""
    import torch

    from basereward import ops

    if not torch.cuda.is_available():
        print("skipped: there is no CUDA device")
        return 0
    status = ops.status()["cuda"]
    if status["kernels"] != "cpp":
        print(f"the CUDA kernels are not in use: {status['reason']}")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, kernels {status['build']}")
    results = {}
    for name, command in STEPS.items():
        if shutil.which(command[0]) is None:
            results[name] = f"skipped: there is no {command[0]}"
            continue
        done = subprocess.run(command, cwd=ROOT, check=False)
        results[name] = "passed" if done.returncode == 0 else f"failed with exit status {done.returncode}"
    print("\n".join(f"{name}: {result}" for name, result in results.items()))
    return int(any(result.startswith("failed") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
