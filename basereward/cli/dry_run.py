"""The table of a dry run, and the arguments of its memory plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.cli.plan import GPUS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from basereward.planning.dry_run import DryRun, Finding
    from basereward.plugins.plugin_manager import PluginManager


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run` and what goes with it."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="start nothing: open every source and benchmark, read first rows, check settings and paths, and "
        "say in a table what would happen; exit 1 where something would fail",
    )
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="of the dry run's memory plan")
    parser.add_argument("--gpu", choices=GPUS, help="their kind (default: no memory plan)")


def dry_run(args: argparse.Namespace, plugins: PluginManager) -> DryRun:
    """Return the dry run that the arguments ask for."""
    from basereward.costs.accelerators import ACCELERATORS
    from basereward.planning.dry_run import DryRun

    return DryRun(plugins, ACCELERATORS[args.gpu] if args.gpu else None, args.gpus)


def print_findings(findings: Mapping[str, Sequence[Finding]]) -> int:
    """Print what each run would meet, a finding that runs share once, and return the exit status."""
    from basereward.reporting.tables import Row, Table

    rows, seen = [], set()
    problems = 0
    for run, parts in findings.items():
        rows.append(Row.of(run, style="heading"))
        for finding in parts:
            if finding in seen:
                continue
            seen.add(finding)
            problems += bool(finding.problem)
            state = f"FAILS: {finding.problem}" if finding.problem else finding.state
            rows.append(Row.of(finding.part, state))
    Table(("part", "state"), rows, num_labels=2).print()
    print(f"{problems} problems" if problems else "all of it would start")
    return 1 if problems else 0
