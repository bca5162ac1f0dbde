"""Time a last layer that is computed at the responses' ends alone: forward passes and training steps.

Run as `python benchmarks/pruning.py`. Both forms take turns in one process, on a Qwen2.5-VL of about 30M
random parameters and 8 decoder layers, and on the first 4 layers of SmolLM2-135M, if `basereward-mini` and
the demo's packages are there. Rewards are compared before they are timed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sharing import Case, in_turns, runner, save_model, targets_of, trees

from basereward.backbones.base import Backbone
from basereward.backbones.qwen_vl import QwenVL
from basereward.errors import ConfigError
from basereward.forest import Tree
from basereward.heads import MLP

QWEN_CASES = (Case("pairs, p=166 r=40", 4, 2, 100, 8, 40), Case("best of 16, p=166 r=40", 1, 16, 100, 8, 40))
TEXT_CASES = (Case("pairs, p=166 r=40", 4, 2, 166, 0, 40), Case("best of 16, p=166 r=40", 1, 16, 166, 0, 40))


def backbones(directory: str) -> Iterator[tuple[str, Backbone, tuple[Case, ...]]]:
    """Yield what is measured, and on what."""
    save_model(Path(directory))
    yield "Qwen2.5-VL, 8 layers", QwenVL(model=directory), QWEN_CASES
    try:
        from basereward_mini.backbone import MiniVLM

        yield "SmolLM2, first 4 layers", MiniVLM(num_layers=4, feature_dropout=0.0), TEXT_CASES
    except (ImportError, ConfigError) as error:
        print(f"SmolLM2 is not measured: {error}")


def measure(backbone: Backbone, case: Case, *, train: bool, repeats: int) -> dict[str, Any]:
    """Time both forms in turns; refuse to where their rewards differ."""
    torch.manual_seed(0)
    head = MLP(backbone.dim)
    batch = trees(case)
    if not case.image_side:
        batch = [Tree.of_text(tree.prompt, tree.responses) for tree in batch]
    whole = backbone.pack(batch, row_tokens=math.inf)
    forests = {"pruned": replace(whole, reads="ends"), "whole": whole}
    runs = {name: runner(backbone, head, forest, targets_of(case), train) for name, forest in forests.items()}
    times, rewards = in_turns(runs, repeats)
    difference = float((rewards["pruned"] - rewards["whole"]).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"{case.name}: rewards differ by {difference:.1e}; not timed")
    speed_up = statistics.median(
        mine / other for mine, other in zip(times["whole"], times["pruned"], strict=True)
    )
    return {
        "case": case.name,
        "what": "training step" if train else "forward",
        **{f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()},
        "speed_up": speed_up,
        "max_difference": difference,
    }


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="timed turns of each form (default 15)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    print(f"fp32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'model':25}{'case':26}{'what':15}{'pruned':>9}{'whole':>9}{'speed-up':>10}{'differ':>9}")
    results = []
    with tempfile.TemporaryDirectory() as directory:
        for name, backbone, cases in backbones(directory):
            for case in cases:
                for train in (False, True):
                    row = measure(backbone, case, train=train, repeats=arguments.repeats)
                    results.append({"model": name, **row})
                    print(
                        f"{name:25}{row['case']:26}{row['what']:15}{row['pruned_ms']:>6.0f} ms"
                        f"{row['whole_ms']:>6.0f} ms{row['speed_up']:>9.2f}x{row['max_difference']:>9.0e}",
                        flush=True,
                    )
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        found = {"machine": machine, "results": results}
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
