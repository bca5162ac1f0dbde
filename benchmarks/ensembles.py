"""Time an ensemble: one member, several on one backbone, and several that run it each for themselves.

Run as `python benchmarks/ensembles.py`; it needs `basereward-mini` and the demo's packages. Four heads on the
first layers of SmolLM2-135M score snippets of film reviews, eight to a comparison, joined by the mean.
The forms take turns; a figure is the median over turns, a ratio's that of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from sharing import in_turns

from basereward import Comparison, Ensemble, RewardModel
from basereward.config import Component

NUM_MEMBERS = 4
BATCH_SIZE = 8


def rows(num: int) -> list[Comparison]:
    """Return comparisons of snippets of film reviews."""
    from basereward_mini.human_ratings import HumanRatings

    return list(islice(HumanRatings(split="test"), num))


def save_members(root: Path, num_layers: int) -> list[Path]:
    """Write models with heads of their own on one backbone."""
    from basereward_mini import smollm2

    source = {"model": str(smollm2.directory(num_layers))}
    found = []
    for number in range(NUM_MEMBERS):
        torch.manual_seed(number)
        model = RewardModel.build(backbone=Component("causal-lm", source))
        model.save(root / f"member-{number}")
        found.append(root / f"member-{number}")
    return found


def measure(directories: list[Path], comparisons: list[Comparison], repeats: int) -> dict[str, Any]:
    """Time the forms in turns; refuse to where the rewards differ."""
    alone = [RewardModel.load(directory) for directory in directories]
    shared = Ensemble.of(directories)
    forms = {
        "one member": lambda: alone[0].score(comparisons, batch_size=BATCH_SIZE),
        "members that share": lambda: shared.score(comparisons, batch_size=BATCH_SIZE),
        "members by themselves": lambda: [model.score(comparisons, batch_size=BATCH_SIZE) for model in alone],
    }
    seconds, found = in_turns(forms, repeats)
    difference = max(
        abs(one - other)
        for joined, *expected in zip(
            found["members that share"], *found["members by themselves"], strict=True
        )
        for mine, its in zip(joined.members.values(), expected, strict=True)
        for one, other in zip(mine, its, strict=True)
    )
    if difference > 1e-5:
        raise SystemExit(f"rewards of members that share differ by {difference:.1e}; not timed")
    return {
        "num_members": len(directories),
        "num_comparisons": len(comparisons),
        "seconds": {name: statistics.median(turns) for name, turns in seconds.items()},
        "times_one_member": {
            name: statistics.median(own / one for own, one in zip(turns, seconds["one member"], strict=True))
            for name, turns in seconds.items()
        },
        "max_difference": difference,
        "turns": seconds,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4, help="layers of SmolLM2-135M (default 4)")
    parser.add_argument("--rows", type=int, default=32, help="comparisons (default 32)")
    parser.add_argument("--repeats", type=int, default=7, help="timed turns of each form (default 7)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        directories = save_members(Path(directory), arguments.layers)
        found = measure(directories, rows(arguments.rows), arguments.repeats)
    print(
        f"SmolLM2-135M, first {arguments.layers} layers, fp32, {found['num_comparisons']} comparisons in "
        f"batches of {BATCH_SIZE}, {torch.get_num_threads()} threads, medians of {arguments.repeats} turns"
    )
    for name, seconds in found["seconds"].items():
        print(f"{name:24}{seconds:8.3f} s{found['times_one_member'][name]:8.3f} x one member")
    print(f"rewards of members that share differ from those alone by at most {found['max_difference']:.1e}")
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        command = " ".join(["python benchmarks/ensembles.py", *sys.argv[1:]])
        whole = {"command": command, "machine": machine, "layers": arguments.layers, **found}
        arguments.output.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
