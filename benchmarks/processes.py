"""Time a second process: the time of a step in one process, in two with copies of the model (DDP), and
in two with halves of it (FSDP2), one thread each; and how far their loss curves are apart.

Run as `python benchmarks/processes.py`. The runs go through `torchrun` as a user's would, and take turns.
Time is taken between the records of the first and the last step that count, so that starting up is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from against_trl import pairs_of_lengths, save_model, write_pairs

BATCH_SIZE = 16
WARM_UP = 2
FORMS = {"one": (1, "ddp"), "ddp": (2, "ddp"), "fsdp": (2, "fsdp")}


def train(
    form: str, model: Path, data: Path, num_steps: int, *, num_processes: int = 1, **settings: str
) -> tuple[float, list[float]]:
    """Train anew, and return seconds a step and the loss of each step.

    Args:
        form: A name for the run.
        model: A model of texts.
        data: Pairs as TRL writes them.
        num_steps: Steps, those included that don't count.
        num_processes: How many processes train together.
        settings: Of `train`, as TOML has them.
    """
    given = {"save_every": "1000000", **settings}
    output = data.parent / form
    run_file = data.parent / f"{form}.toml"
    run_file.write_text(
        f'output = "{output}"\nhead = "linear"\nfresh_head = true\n'
        f'[backbone]\nname = "causal-lm"\nmodel = "{model}"\n'
        f'[[data.train]]\nname = "trl"\npath = "{data}"\n'
        f"[train]\nmax_steps = {num_steps}\nepochs = 100.0\nbatch_size = {BATCH_SIZE}\nmicro_batch_size = 4\n"
        'lr = 1e-4\nlog_every = 1\nprecision = "fp32"\n'
        + "".join(f"{name} = {value}\n" for name, value in given.items())
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "-m", "basereward", "train", str(run_file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--overwrite", "--quiet"], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{form}: {done.stderr}")
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "step"]
    seconds = steps[-1]["seconds"] - steps[WARM_UP - 1]["seconds"]
    return seconds / (len(steps) - WARM_UP), [record["loss"] for record in steps]


def main() -> None:
    """Train in turns, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        model, data = Path(directory) / "model", Path(directory) / "pairs.jsonl"
        save_model(model)
        write_pairs(pairs_of_lengths(arguments.steps * BATCH_SIZE, 150, 40), data)
        for _ in range(arguments.turns):
            for form in FORMS:
                number, parallel = FORMS[form]
                taken, losses[form] = train(
                    form, model, data, arguments.steps, num_processes=number, parallel=f'"{parallel}"'
                )
                seconds[form].append(taken)
    results: list[dict[str, Any]] = []
    for form, (num_processes, parallel) in FORMS.items():
        ratios = [one / own for one, own in zip(seconds["one"], seconds[form], strict=True)]
        row = {
            "form": form,
            "num_processes": num_processes,
            "seconds_a_step": statistics.median(seconds[form]),
            "speed_up": statistics.median(ratios),
            "max_loss_difference": max(
                abs(own - one) for own, one in zip(losses[form], losses["one"], strict=True)
            ),
        }
        results.append(row)
        name = "one process" if num_processes == 1 else f"two processes, {parallel}"
        print(
            f"{name:22}{row['seconds_a_step']:>7.3f} s a step{row['speed_up']:>7.2f}x   "
            f"losses within {row['max_loss_difference']:.1e}"
        )
    if arguments.output:
        machine = {"platform": platform.platform(), "command": " ".join(sys.argv)}
        arguments.output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
