"""Install a wheel beside several versions of torch, each in an environment of its own, and train there.

Run as `python tests/support/clean_installs.py WHEEL TORCH ...`, or `make test-wheel`. Each torch is fetched,
with what it needs of CUDA: 4 to 5 GB a version. Prints a line for each, and exits with 1 where the native ops
are not in use, or where what a user would type first fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path

ROWS = [
    {
        "id": str(number),
        "prompt": f"{number} + 1?",
        "responses": [str(number + 1), str(number)],
        "ranks": [0, 1],
    }
    for number in range(8)
]

RUN = """\
output = "run"
backbone = { name = "tiny" }
train = { max_steps = 3, batch_size = 4 }

[data]
train = [{ name = "basereward", path = "rows.jsonl" }]
eval = [{ name = "basereward", path = "rows.jsonl" }]
"""

STATUS = """
import json, torch
from basereward import ops
kernels = {name: part["kernels"] for name, part in ops.status().items()}
print(json.dumps({"torch": torch.__version__, **kernels}))
"""


def installed(wheel: Path, version: str, directory: Path) -> Path:
    """Return the Python of an environment with a version of torch and a wheel, made where it isn't there.

    Raises:
        subprocess.CalledProcessError: When they can't be installed.
    """
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, f"torch=={version}", f"{wheel.resolve()}[train]"], check=True)
    return python


def trained(python: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return which torch and which kernels are in use, after a training, an evaluation and a scoring.

    Args:
        python: Of the environment that BaseReward is installed into.
        environment: The variables of the commands.

    Raises:
        subprocess.CalledProcessError: When a command fails.
    """
    with tempfile.TemporaryDirectory() as place:
        Path(place, "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
        Path(place, "run.toml").write_text(RUN)

        def output_of(*words: str) -> str:
            done = subprocess.run(
                [str(python), *words], cwd=place, env=environment, check=True, capture_output=True, text=True
            )
            return done.stdout

        output_of("-m", "basereward", "train", "run.toml")
        output_of("-m", "basereward", "evaluate", "run/model", "--data", "rows.jsonl")
        words = ["--prompt", "1 + 1?", "--response", "2", "--response", "3"]
        output_of("-m", "basereward", "score", "run/model", *words)
        output_of("-m", "basereward", "recipes", "basereward-7b")
        facts: dict[str, str] = json.loads(output_of("-c", STATUS))
    return facts


def main() -> int:
    """Try each; return 1 where one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("torches", nargs="+", metavar="TORCH")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="where they are made, and kept")
    arguments = parser.parse_args()
    failed = False
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as temporary:
        for version in arguments.torches:
            start = time.perf_counter()
            directory = (arguments.environments or Path(temporary)) / f"torch-{version}"
            try:
                facts = trained(installed(arguments.wheel, version, directory), environment)
            except subprocess.CalledProcessError as error:
                print(f"torch {version}: {error}\n{error.stdout or ''}{error.stderr or ''}", flush=True)
                failed = True
                continue
            failed |= facts["cpu"] != "cpp"
            kernels = f"kernels {facts['cpu']}, helpers {facts['host']}"
            seconds = time.perf_counter() - start
            print(f"torch {facts['torch']}: trained; {kernels}; {seconds:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
