"""Time the ops beside what they replace, all variants of a case in turns within one run.

Run as `python benchmarks/ops/measure.py`; it writes benchmarks/results/ops.json and docs/ops.md's tables.
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
from basereward.testing.native.timing import Case, floor, keep_large_blocks, machine, measure, shown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "ops.json"
DOCUMENT = ROOT / "docs" / "ops.md"
LARGEST_SLOWDOWN = 1.10
FLOOR_SECONDS = 20e-6


def makers(names: str) -> Iterator[Callable[[], Case]]:
    """Yield what makes the cases whose names contain a text."""
    found: list[tuple[Callable[..., Case], tuple[Any, ...]]]
    found = [(cases.bt_loss, (count,)) for count in (*cases.PAIRS, cases.MANY_PAIRS)]
    found += [
        (cases.reward_head, (model, count, dtype))
        for dtype in cases.DTYPES
        for model in cases.WIDTHS
        for count in cases.PAIRS
        if count * cases.WIDTHS[model] ** 2 <= 4096 * 3584**2
    ]
    found += [
        (cases.every_token, (dtype, passes)) for dtype in cases.DTYPES for passes in ("both", "forward")
    ]
    found += [(cases.few_rows, (count,)) for count in (1, 2, 4, 8, 12)]
    for maker, arguments in found:
        label = " ".join(map(str, (maker.__name__, *arguments)))
        if names in label:
            yield partial(maker, *arguments)


def table(rows: list[dict[str, Any]], rates: dict[str, float]) -> str:
    """Return the Markdown tables of the results."""
    parts = []
    for title, start, others in (
        ("Bradley-Terry loss, forward and backward", "BT loss", ("eager", "compile")),
        (
            "Reward head on its rows, forward and backward if not said otherwise",
            "head",
            ("eager", "products"),
        ),
        ("Reward head on hidden states, against scoring every token", "head", ("every token",)),
    ):
        chosen = [row for row in rows if row["case"].startswith(start) and others[-1] in row["seconds"]]
        if not chosen:
            continue
        heads = " | ".join(f"{name} | ratio" for name in others)
        lines = [
            f"### {title}",
            "",
            f"| case | native | {heads} | floor |",
            "|---" * (3 + 2 * len(others)) + "|",
        ]
        for row in chosen:
            ours = row["seconds"]["native"]
            cells = " | ".join(
                f"{shown(row['seconds'][name])} | {row['seconds'][name] / ours:.2f}" for name in others
            )
            lines.append(f"| {row['case']} | {shown(ours)} | {cells} | {shown(floor(row, rates))} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_document(report: dict[str, Any]) -> None:
    """Put the tables between their marks in the document."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    facts = report["machine"]
    rates = report["roofline"]
    said = (
        f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, commit "
        f"{facts['commit'][:12]}; {rates['bytes'] / 1e9:.0f} GB/s, "
        f"{rates['float32'] / 1e9:.0f} GFLOP/s in fp32, {rates['bfloat16'] / 1e9:.0f} in bf16."
    )
    body = f"{begin}\n{said}\n\n{table(report['results'], rates)}\n{end}"
    DOCUMENT.write_text(before + body + after, encoding="utf-8")


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

    is_cuda = arguments.device.startswith("cuda")
    results = RESULTS.with_stem("ops-cuda") if is_cuda else RESULTS
    rates, rows = measure(makers(arguments.cases), arguments.device)
    if arguments.compare:
        found = slower(json.loads(results.read_text(encoding="utf-8"))["results"], rows)
        print("\n".join(found) or "no op has become slower")
        return int(bool(found))
    if not arguments.cases:
        report = {"machine": machine(ops.status()), "roofline": rates, "results": rows}
        results.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if not is_cuda:
            write_document(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
