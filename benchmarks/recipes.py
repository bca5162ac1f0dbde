"""Start every recipe on data laid out as published, in small, and count what came of it.

Run as `python benchmarks/recipes.py [--output FILE]`, which takes 10 to 15 minutes of a core: it runs
`tests/recipes`, reads the results that the studies have left, writes the mixture of the flagship recipe, and
holds the benchmarks' scores against the official arithmetic. `--dry` starts no training, and takes a minute.
`--table FILE` prints the table of docs/datasets.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections import Counter
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in ("tests/support", "tests/evaluation/benchmarks", "plugins/basereward-mini", "."):
    sys.path.insert(0, str(ROOT / folder))

FLAGSHIP = "recipes/basereward-7b.toml"
NUM_HELD_OUT = 12
STARTED = {
    "run files trained and evaluated": "test_every_run_file_trains_and_evaluates",
    "studies with every row filled": "test_every_cell_of_every_study_fills_its_row",
    "dry runs without a problem": "test_every_recipe_would_start",
}
"""What a test of each recipe is called by, and its name."""


class Outcomes:
    """A plugin of pytest that counts the tests that passed, by name and outcome."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, bool]] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test once: after its call, or where its set-up failed."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            name = report.nodeid.partition("::")[2].partition("[")[0]
            self.counts[name, report.passed] += 1


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def started(place: Path, tests: str) -> dict[str, Any]:
    """Run tests of all recipes, and return how many passed and the seconds that they took."""
    import pytest

    outcomes = Outcomes()
    start = cpu_seconds()
    arguments = ["-q", "-p", "no:xdist", "-m", "slow or not slow", "--timeout", "1800", f"--basetemp={place}"]
    status = pytest.main([*arguments, str(ROOT / tests)], plugins=[outcomes])
    counts = {
        title: {
            "passed": outcomes.counts[name, True],
            "all": outcomes.counts[name, True] + outcomes.counts[name, False],
        }
        for title, name in STARTED.items()
        if outcomes.counts[name, True] + outcomes.counts[name, False]
    }
    return {"status": int(status), "cpu_seconds": round(cpu_seconds() - start), "recipes": counts}


def filled() -> dict[str, int]:
    """Return how many cells of the studies' tables there are, and how many have a number."""
    from basereward.study import load_study
    from basereward.study.results import RESULTS_FILE

    cells, with_number = 0, 0
    for path in sorted(Path("recipes").rglob("*.toml")):
        if "[axes" not in path.read_text(encoding="utf-8"):
            continue
        study = load_study(path, ["seeds=[0]"])
        results = Path(study.output, RESULTS_FILE)
        if not results.is_file():
            continue
        for line in results.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)["values"]
            cells += len(study.columns)
            with_number += len(set(study.columns) & set(values))
    return {"cells": cells, "filled": with_number}


def mixture() -> dict[str, int]:
    """Write the flagship's mixture, and return the rows asked for, held out and written."""
    from basereward.cli import main

    printed = StringIO()
    output = ["--output", "mixture.jsonl", "--held-out", "held-out.jsonl", "--overwrite", "--json", "--quiet"]
    with redirect_stdout(printed):
        assert main(["data", "mix", FLAGSHIP, "--num-held-out", str(NUM_HELD_OUT), *output]) == 0
    sources = json.loads(printed.getvalue())["sources"]
    names = ("asked", "held_out", "written", "excluded", "left_out")
    return {name: sum(source[name] for source in sources) for name in names}


def differences(place: Path) -> dict[str, float]:
    """Return the largest difference of each benchmark's scores from the official arithmetic."""
    from layouts import values
    from test_official import NUM_DRAWS, OFFICIAL, drawn

    from basereward.config import Component
    from basereward.plugins import PluginManager

    largest = {}
    for name, (write, official) in OFFICIAL.items():
        write(place / name)
        component = Component(name, {"path": str(place / name)})
        benchmark: Any = PluginManager().build("benchmark", component)
        rows = list(benchmark.comparisons())
        apart = [0.0]
        for seed in range(NUM_DRAWS):
            rewards = drawn([len(row.responses) for row in rows], seed)
            ours = values(benchmark, rewards)
            apart += [abs(ours[metric] - value) for metric, value in official(rows, rewards).items()]
        largest[name] = max(apart)
    return largest


def measured(*, trains: bool) -> dict[str, Any]:
    """Return all that is counted; without trainings what they leave is not."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        results = started(place / "tests", "tests/recipes" if trains else "tests/recipes/test_dry_run.py")
        with chdir(place / "tests" / "recipes0"):
            results |= {"tables": filled()} if trains else {}
            results["mixture"] = mixture()
        results["official"] = differences(place / "official")
    return results


def table(results: dict[str, Any]) -> str:
    """Return the table of what was counted."""
    lines = ["| counted | |", "|---|---:|"]
    for title, counts in results["recipes"].items():
        lines.append(f"| {title} | {counts['passed']} of {counts['all']} |")
    mixed = results["mixture"]
    if tables := results.get("tables"):
        cells = f"{tables['filled']:,} of {tables['cells']:,}"
        lines.append(f"| cells of the studies' tables with a number | {cells} |")
    mixing = "`data mix`: rows of an epoch, written, with a held-out prompt, unread"
    lines.append(f"| {mixing} | {_counts(mixed)} |")
    lines.append(f"| CPU seconds of these tests | {results['cpu_seconds']:,} |")
    for name, difference in results["official"].items():
        lines.append(f"| `{name}`: largest difference from the official arithmetic | {difference:.1g} |")
    return "\n".join(lines)


def _counts(mixed: dict[str, int]) -> str:
    return ", ".join(f"{mixed[name]:,}" for name in ("asked", "written", "excluded", "left_out"))


def main() -> None:
    """Count, or print the table of what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    parser.add_argument("--dry", action="store_true", help="the dry runs alone, and no training")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of earlier numbers")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = measured(trains=not arguments.dry)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
