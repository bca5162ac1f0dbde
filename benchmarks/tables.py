"""The tables of docs/measurements.md, of every machine whose results are kept; `make bench` writes them anew.

Run as `python benchmarks/tables.py`; `--check` only tells whether they are what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machines

from basereward.testing.native.timing import floor, shown

DOCUMENT = Path(__file__).parents[1] / "docs" / "measurements.md"

Report = Mapping[str, Any]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ops(report: Report) -> str:
    """Return the tables of the native ops beside what they replace."""
    facts, rates = report["machine"], report["roofline"]
    parts = [
        f"{facts['threads']} threads, torch {facts['torch']}, commit {facts['commit'][:12]}; "
        f"{rates['bytes'] / 1e9:.0f} GB/s, {rates['float32'] / 1e9:.0f} GFLOP/s in fp32, "
        f"{rates['bfloat16'] / 1e9:.3g} in bf16."
    ]
    for title, start, others in (
        ("Bradley-Terry loss, forward and backward", "BT loss", ("eager", "compile")),
        (
            "Reward head on its rows, forward and backward if not said otherwise",
            "head",
            ("eager", "products"),
        ),
        ("Reward head on hidden states, against scoring every token", "head", ("every token",)),
    ):
        chosen = [
            row for row in report["results"] if row["case"].startswith(start) and others[-1] in row["seconds"]
        ]
        rows = []
        for row in chosen:
            seconds = row["seconds"]
            cells = [
                text
                for name in others
                for text in (shown(seconds[name]), f"{seconds[name] / seconds['native']:.2f}")
            ]
            rows.append([row["case"], shown(seconds["native"]), *cells, shown(floor(row, rates))])
        if rows:
            titles = ["case", "native", *(text for name in others for text in (name, "ratio")), "floor"]
            parts.append(f"**{title}**\n\n{_table(titles, rows)}")
    return "\n\n".join(parts)


def sharing(report: Report) -> str:
    """Return the table of forests beside one row a response."""
    rows = [
        [
            row["case"],
            row["what"],
            f"{row['forest_ms']:.0f} ms",
            f"{row['rows_ms']:.0f} ms",
            *(f"{row[name]:.2f}" for name in ("speed_up", "token_ratio", "share_of_ratio")),
        ]
        for row in report["results"]
    ]
    titles = ["case (p, r: tokens)", "", "forest", "one row a response", "speed-up", "token ratio"]
    return _table([*titles, "speed-up / ratio"], rows)


def against_trl(report: Report) -> str:
    """Return the table of trainings beside TRL's."""
    rows = [
        [
            re.sub(r"p=(\d+) r=(\d+)", r"\1, \2", row["case"]),
            *(f"{row[f'{name}_pairs_per_second']:.1f} pairs/s" for name in ("ours", "trl")),
            f"{row['speed_up']:.2f}",
            f"{row['token_ratio']:.2f}",
            f"{row['ours_memory_mib']:.0f} v. {row['trl_memory_mib']:.0f} MiB",
        ]
        for row in report["results"]
    ]
    titles = ["prompt, responses: tokens", "BaseReward", "TRL", "speed-up", "token ratio"]
    return _table([*titles, "memory beyond start-up"], rows)


def serving(report: Report) -> str:
    """Return the table of 64 clients beside one."""
    rows = [
        [
            re.sub(r"p=(\d+) r=(\d+)", r"\1 + \2 tokens", row["case"]),
            f"{row['requests_a_second']:.1f}",
            f"{row['one_client_requests_a_second']:.1f}",
            f"{row['ratio']:.1f}",
            *(f"{row[name] / 1000:.2f} s" for name in ("p50_ms", "p99_ms")),
        ]
        for row in report["concurrent"]
    ]
    return _table(
        ["64 clients, one sample per request", "requests/s", "one client", "ratio", "p50", "p99"], rows
    )


def threads(report: Report) -> str:
    """Return the table of the ways in which OpenMP's threads wait."""
    kinds = list(next(iter(report["results"].values())))
    rows = [[name, *(f"{rates[kind]:.1f}" for kind in kinds)] for name, rates in report["results"].items()]
    beside = (
        f"{report['load']} busy processes beside, load average {report['load_average_before']:.1f} before; "
    )
    return f"{beside}passes a second:\n\n{_table(['', *kinds], rows)}"


TABLES: dict[str, Callable[[Report], str]] = {
    "ops": ops,
    "sharing": sharing,
    "against_trl": against_trl,
    "serving": serving,
    "threads": threads,
}
"""Each benchmark's table of a report."""


def written(name: str, text: str, results: Path = machines.RESULTS) -> str:
    """Return the document with the tables of a benchmark between their marks, one a machine.

    Raises:
        ValueError: When the document has no such marks.
    """
    begin, end = f"<!-- measured {name}: begin -->", f"<!-- measured {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"there is no {begin} ... {end}")
    parts = [f"{title}\n\n{TABLES[name](report)}" for title, report in machines.kept(name, results)]
    return f"{before}{begin}\n" + "\n\n".join(parts) + f"\n{end}{after}"


def write(
    names: Sequence[str] = tuple(TABLES), document: Path = DOCUMENT, results: Path = machines.RESULTS
) -> list[str]:
    """Write the tables of benchmarks into the document; return the names of those that have changed."""
    changed = []
    for name in names:
        before = document.read_text(encoding="utf-8")
        after = written(name, before, results)
        if after != before:
            document.write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


def save(name: str, report: Report, output: Path | None, *, is_kept: bool) -> None:
    """Write a benchmark's results to a file, and keep them for this machine, as the command line asks."""
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if is_kept:
        print(f"kept in {machines.keep(name, report)}")
        if name in TABLES:
            write([name])


def main() -> int:
    """Write the tables, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is old")
    arguments = parser.parse_args()
    if not arguments.check:
        print(f"written: {', '.join(write()) or 'nothing new'}")
        return 0
    text = DOCUMENT.read_text(encoding="utf-8")
    old = [name for name in TABLES if written(name, text) != text]
    print(f"old: {', '.join(old)}" if old else "all tables are of the results kept")
    return int(bool(old))


if __name__ == "__main__":
    sys.exit(main())
