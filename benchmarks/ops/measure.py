"""Time the ops beside what they replace, all variants of a case in turns within one run.

Run as `python benchmarks/ops/measure.py`; it keeps this machine's results in benchmarks/results, and writes
the tables of docs/measurements.md. Cases that this machine would compute for minutes are left out.
`--compare` measures anew, writes nothing, and exits with 1 where an op has become slower by more than 10 %,
and by more than 20 us, against its eager twin of the same run; so another machine's speed doesn't matter.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cases

from basereward import ops
from basereward.testing.native.timing import Case, keep_large_blocks, machine, measure, shown

sys.path.append(str(Path(__file__).parents[1]))
import machines
import tables

LARGEST_SLOWDOWN = 1.10
FLOOR_SECONDS = 20e-6


def makers(names: str) -> Iterator[Callable[[], Case]]:
    """Yield what makes the cases whose names contain a text."""
    found: list[tuple[Callable[..., Case], tuple[Any, ...]]]
    found = [(cases.bt_loss, (count,)) for count in (*cases.PAIRS, cases.MANY_PAIRS)]
    found += [(cases.lean_bt_loss, (count,)) for count in cases.PAIRS]
    found += [
        (cases.reward_head, (model, count, dtype))
        for dtype in cases.DTYPES
        for model in cases.WIDTHS
        for count in cases.PAIRS
        if count * cases.WIDTHS[model] ** 2 <= 4096 * 3584**2
    ]
    found += [(cases.reward_loss, (width, count)) for width in (256, 3584) for count in cases.PAIRS]
    found += [
        (cases.every_token, (dtype, passes)) for dtype in cases.DTYPES for passes in ("both", "forward")
    ]
    found += [(cases.few_rows, (count,)) for count in (1, 2, 4, 8, 12)]
    for maker, arguments in found:
        label = " ".join(map(str, (maker.__name__, *arguments)))
        if names in label:
            yield partial(maker, *arguments)


def slower(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    """Return the cases that have become slower against what they replace."""
    kept = {row["case"]: row["seconds"] for row in old}
    found = []
    for row in new:
        before, now = kept.get(row["case"]), row["seconds"]
        if before is None:
            continue
        beside = next(name for name in now if name != "native")
        expected = before["native"] / before[beside] * now[beside]
        if now["native"] > LARGEST_SLOWDOWN * expected and now["native"] > expected + FLOOR_SECONDS:
            found.append(
                f"{row['case']}: {shown(now['native'])}, where {shown(expected)} was to be expected from "
                f"{beside}'s {shown(now[beside])}"
            )
    return found


def main() -> int:
    """Measure, print, and write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", action="store_true", help="fail where an op has become slower")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; of the latter only JSON is written")
    parser.add_argument("--cases", default="", metavar="TEXT", help="only cases whose name contains it")
    arguments = parser.parse_args()
    keep_large_blocks()

    name = "ops-cuda" if arguments.device.startswith("cuda") else "ops"
    rates, rows = measure(makers(arguments.cases), arguments.device)
    if arguments.compare:
        kept = machines.path_of(name)
        if not kept.is_file():
            raise SystemExit(
                f"{kept} is not there: no results of this machine are kept; run make bench first"
            )
        found = slower(json.loads(kept.read_text(encoding="utf-8"))["results"], rows)
        print("\n".join(found) or "no op has become slower")
        return int(bool(found))
    if not arguments.cases:
        machines.keep(name, {"machine": machine(ops.status()), "roofline": rates, "results": rows})
        if name in tables.TABLES:
            tables.write([name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
