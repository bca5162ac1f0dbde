"""Audit the audit: plant faults in a scorer, and count how often they are found, and others where none are.

Run as `python benchmarks/audit.py [--seeds 20] [--rows 300] [--json FILE]`. Rows and noise are drawn anew for
each seed; plants are those of `basereward.testing.planted`, in a scorer without a model, in a judge, and in a
model whose rewards stand on an offset that bf16 can't hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from basereward import RewardModel, audit
from basereward.protocols import Scorer
from basereward.stats.interval import wilson
from basereward.testing.planted import BIASES, FAULTS, planted, planted_rows
from basereward.testing.planted_models import OFFSET, PlantedParadigm

EXPECTED = {
    "image out": ("ablations: image out", "ablations: another row's image", "shortcuts: text alone"),
    "prompt out": ("ablations: prompt out",),
    "position": ("shortcuts: position", "stability: order"),
    "batch": ("stability: batch",),
    "calibration": ("calibration: calibration",),
    **{name: (f"shortcuts: {name}", f"regression: {name}") for name in BIASES},
}
"""The measures that have to find a fault; for others that of the fault's name among those of stability."""

JUDGE_FAULTS = ("none", "image out", *BIASES)


def model_of(paradigm: PlantedParadigm) -> Scorer[list[float]]:
    """Return a reward model of a paradigm without components."""
    return RewardModel(paradigm, {})


def cases() -> dict[str, tuple[Callable[[int], Scorer[list[float]]], tuple[str, ...]]]:
    """Return for each case the model of a seed, and the measures that have to find its fault."""
    found: dict[str, tuple[Callable[[int], Scorer[list[float]]], tuple[str, ...]]] = {
        "none": (lambda seed: planted("none", seed), ())
    }
    for fault in FAULTS:
        measures = EXPECTED.get(fault, (f"stability: {fault}",))
        found[fault] = (lambda seed, fault=fault: planted(fault, seed), measures)
    found["precision"] = (
        lambda seed: model_of(PlantedParadigm(planted("none", seed), offset=OFFSET)),
        ("stability: precision",),
    )
    for fault in JUDGE_FAULTS:
        found[f"judge, {fault}"] = (
            lambda seed, fault=fault: model_of(PlantedParadigm(planted(fault, seed), is_judge=True)),
            () if fault == "none" else EXPECTED[fault],
        )
    found["judge, verdicts"] = (
        lambda seed: model_of(PlantedParadigm(planted("none", seed), is_judge=True, lean=1.0)),
        ("shortcuts: verdicts",),
    )
    return found


def measure(
    model: Callable[[int], Scorer[list[float]]], expected: tuple[str, ...], num_seeds: int, num_rows: int
) -> dict[str, Any]:
    """Return how often each expected measure finds the fault, and what else is found."""
    counts: Counter[str] = Counter()
    num_false = num_findings = 0
    for seed in range(num_seeds):
        result = audit(model(seed), planted_rows(num_rows, seed), seed=seed)
        names = [f"{finding.family}: {finding.name}" for finding in result.flagged]
        counts.update(names)
        num_false += any(name not in expected for name in names)
        num_findings += len(result.findings)
    return {
        "found": {name: counts[name] for name in expected},
        "others": {name: count for name, count in counts.items() if name not in expected},
        "num_seeds": num_seeds,
        "num_seeds_with_others": num_false,
        "num_findings": num_findings,
    }


def main() -> int:
    """Print a table, and write the numbers where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--only", action="append", help="a case; may be repeated")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Mapping[str, Any]] = {}
    for name, (model, expected) in cases().items():
        if args.only and name not in args.only:
            continue
        results[name] = measured = measure(model, expected, args.seeds, args.rows)
        found = ", ".join(f"{measure} {count}/{args.seeds}" for measure, count in measured["found"].items())
        others = ", ".join(f"{other} {count}" for other, count in measured["others"].items())
        print(f"{name}: {found or 'nothing planted'}; others: {others or 'none'}", flush=True)
    clean = [entry for name, entry in results.items() if name.endswith("none")]
    if clean:
        num = sum(entry["num_seeds"] for entry in clean)
        false = sum(entry["num_seeds_with_others"] for entry in clean)
        low, high = wilson(false / num, num)
        print(f"clean audits with a finding: {false}/{num} ({low:.3f} to {high:.3f})")
    if args.json:
        args.json.write_text(json.dumps({"rows": args.rows, "cases": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
