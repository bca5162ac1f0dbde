"""Audit the audit: plant faults in a scorer, and count how often they are found, and others where none are.

Run as `python benchmarks/audit.py [--seeds 20] [--rows 150] [--json benchmarks/results/audit.json]`. Rows and
noise are drawn anew for each seed; plants are those of `basereward.testing.planted`, in a scorer without a
model, in a judge, and in a model whose rewards stand on an offset that bf16 can't hold. Slopes are counted
apart: on as many rows as they take, and on `--rows` of them, of which an audit leaves them out.
`benchmarks/audit_cost.py` has the cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeAlias

from basereward import RewardModel, audit
from basereward.evaluation.audit import measures
from basereward.evaluation.audit.features import FEATURES
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
    **{name: (f"shortcuts: {name}",) for name in BIASES},
}
"""The measures that have to find a fault; for others that of the fault's name among those of stability."""


Model: TypeAlias = Callable[[int, dict[tuple[str, ...], float]], Scorer[list[float]]]
"""From a seed, and a cache that the models of one seed share, a model."""


def cases() -> dict[str, tuple[Model, tuple[str, ...]]]:
    """Return for each case its model, and the measures that have to find its fault."""

    def scorer(fault: str) -> Model:
        return lambda seed, cache: planted(fault, seed, cache=cache)

    def model(fault: str, **options: Any) -> Model:
        return lambda seed, cache: RewardModel(
            PlantedParadigm(planted(fault, seed, cache=cache), **options), {}
        )

    scorers = {fault: (scorer(fault), EXPECTED.get(fault, (f"stability: {fault}",))) for fault in FAULTS}
    judges = {
        f"judge, {fault}": (model(fault, is_judge=True), EXPECTED[fault]) for fault in ("image out", *BIASES)
    }
    return {
        "none": (scorer("none"), ()),
        "judge, none": (model("none", is_judge=True), ()),
        **scorers,
        "precision": (model("none", offset=OFFSET), ("stability: precision",)),
        "judge, verdicts": (model("none", is_judge=True, lean=1.0), ("shortcuts: verdicts",)),
        **judges,
    }


def flagged(
    seed: int, num_rows: int, names: Sequence[str], slope_rows: int = measures.SLOPE_ROWS
) -> dict[str, list[str]]:
    """Return the measures that find something, of each case, for one seed."""
    rows, cache = planted_rows(num_rows, seed), dict[tuple[str, ...], float]()
    measures.SLOPE_ROWS = slope_rows
    return {
        name: [
            f"{finding.family}: {finding.name}"
            for finding in audit(model(seed, cache), rows, seed=seed).flagged
        ]
        for name, (model, _) in cases().items()
        if name in names
    }


def counted(
    args: argparse.Namespace, names: Sequence[str], num_rows: int, slope_rows: int = measures.SLOPE_ROWS
) -> tuple[dict[str, Counter[str]], list[bool]]:
    """Return how often each measure finds something, by case, and whether each clean audit finds anything."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    clean: list[bool] = []
    with ProcessPoolExecutor(args.workers) as pool:
        waiting = [pool.submit(flagged, seed, num_rows, names, slope_rows) for seed in range(args.seeds)]
        for done in as_completed(waiting):
            for name, found in done.result().items():
                counts[name].update(found)
                if not cases()[name][1]:
                    clean.append(bool(found))
            print("a seed is done", file=sys.stderr, flush=True)
    return counts, clean


def slopes(args: argparse.Namespace, num_rows: int) -> dict[str, Any]:
    """Return how often slopes find their plants, and how often clean scorers are accused."""
    counts, clean = counted(args, ["none", *FEATURES], num_rows, num_rows)
    found = {name: counts[name][f"regression: {name}"] for name in FEATURES}
    print(f"slopes of {num_rows} rows: {found}; clean audits with a finding: {sum(clean)}/{len(clean)}")
    return {"found": found, "clean": len(clean), "clean_flagged": sum(clean)}


def main() -> int:
    """Print what was found of each case, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--only", action="append", help="a case; may be repeated; no slopes then")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = {name: expected for name, (_, expected) in cases().items() if name in (args.only or cases())}
    counts, clean = counted(args, list(chosen), args.rows)
    results = {}
    for name, expected in chosen.items():
        others = {measure: count for measure, count in counts[name].items() if measure not in expected}
        results[name] = {
            "found": {measure: counts[name][measure] for measure in expected},
            "others": others,
        }
        planted_there = ", ".join(f"{measure} {counts[name][measure]}/{args.seeds}" for measure in expected)
        besides = ", ".join(f"{measure} {count}" for measure, count in others.items())
        print(f"{name}: {planted_there or 'nothing planted'}; others: {besides or 'none'}")
    if clean:
        low, high = wilson(sum(clean) / len(clean), len(clean))
        print(f"clean audits with a finding: {sum(clean)}/{len(clean)} ({low:.3f} to {high:.3f})")
    facts = {"rows": args.rows, "seeds": args.seeds, "clean": len(clean), "clean_flagged": sum(clean)}
    if not args.only:
        facts["slopes"] = {str(num): slopes(args, num) for num in (measures.SLOPE_ROWS, args.rows)}
    if args.json:
        args.json.write_text(json.dumps({**facts, "cases": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
