"""Rewards in bf16 beside those in fp32: how far they are apart, and which pairs change places.

Run as `python benchmarks/precision.py runs/demo/model --dataset openmoji-captions --option split=test`. The
comparisons are scored in batches and one at a time, in each precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import machines

from basereward import load_model
from basereward.cli.data_arguments import key_values
from basereward.config import Component
from basereward.plugins.plugin_manager import manager

RUNS = {"fp32": 8, "bf16": 8, "fp32, alone": 1, "bf16, alone": 1}
"""Names of the forms, and comparisons a forward pass."""

COMPARED = (("fp32", "bf16"), ("fp32", "fp32, alone"), ("bf16", "bf16, alone"))


def difference(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return how far two sets of rewards of the same responses are apart."""
    flat = [reward for rewards in one for reward in rewards]
    apart = sorted(
        abs(a - b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )
    num_pairs, gaps = 0, []
    for left, right in zip(one, other, strict=True):
        for i, j in combinations(range(len(left)), 2):
            num_pairs += 1
            if (left[i] - left[j]) * (right[i] - right[j]) < 0:
                gaps.append(abs(left[i] - left[j]))
    return {
        "standard_deviation": statistics.pstdev(flat),
        "median": apart[len(apart) // 2],
        "percentile_99": apart[len(apart) * 99 // 100],
        "max": apart[-1],
        "num_pairs": num_pairs,
        "num_flipped": len(gaps),
        "largest_flipped_gap": max(gaps, default=0.0),
    }


def main() -> None:
    """Score, and print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a model directory")
    parser.add_argument("--dataset", default="basereward", help="default: our own format")
    parser.add_argument("--option", metavar="KEY=VALUE", action="append", default=[], help="of the dataset")
    parser.add_argument("--keep", action="store_true", help="keep the results for this machine")
    arguments = parser.parse_args()
    options = key_values(arguments.option, "--option")
    comparisons = list(manager().build("dataset", Component(arguments.dataset, options)))
    models = {name: load_model(arguments.model, precision=name) for name in ("fp32", "bf16")}
    rewards = {
        name: models[name[:4]].score(comparisons, batch_size=batch_size) for name, batch_size in RUNS.items()
    }
    results = {f"{one} v. {other}": difference(rewards[one], rewards[other]) for one, other in COMPARED}
    print(json.dumps(results, indent=2))
    if arguments.keep:
        machines.keep("precision", {"num_comparisons": len(comparisons), "results": results})


if __name__ == "__main__":
    main()
