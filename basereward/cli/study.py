"""`basereward study`: from a study file to its runs and its tables."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.cli.command import Command, add_overrides
from basereward.cli.dry_run import add_dry_run, dry_run, print_findings
from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from basereward.plugins.plugin_manager import PluginManager
    from basereward.study import PlannedRun, Study

COMMAND = Command(
    description="Run every cell of a study with every seed, hold the models against the same data, and "
    "write tables with intervals and paired tests, plots, and the results they are made of. The same "
    "command runs those that are left, and again those whose definition has changed.",
    examples="""\
  basereward study recipes/studies/small-heads.toml
  basereward study STUDY.toml --list                 what would be run, and what is done
  basereward study STUDY.toml --set "seeds=[0, 1]"   another number of seeds
  basereward study STUDY.toml --results DIR          the tables of results that are stored
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "study_file", metavar="STUDY.toml", help="the base run, the axes, and what is measured"
    )
    add_overrides(parser, "replace a setting of the study, such as run.train.epochs=2")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs at the same time (default: a core each; 1 with a GPU)"
    )
    parser.add_argument("--overwrite", action="store_true", help="run again what is done")
    parser.add_argument(
        "--list", action="store_true", dest="only_list", help="print the runs, and run nothing"
    )
    parser.add_argument(
        "--results", metavar="DIR", type=Path, help="write the tables of the results in DIR, and run nothing"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_dry_run(parser)


def run(args: argparse.Namespace) -> int:
    """Run what is left, write the report, and print the table; 1 if a run failed."""
    from basereward.study.spec import load_study, planned_runs

    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs is {args.jobs}; allowed: 1 and more")
    study = load_study(args.study_file, args.overrides)
    if args.results is not None:
        return _tables(study, args.results)
    from basereward.plugins.plugin_manager import manager

    plugins = manager(study.run_table().get("plugins", ()))
    runs = planned_runs(study, plugins, path=args.study_file)
    if args.only_list:
        return _list(study, runs)
    if args.dry_run:
        return _dry_run(study, runs, plugins, args)
    from basereward.study.collect import collect
    from basereward.study.report import claim
    from basereward.study.run import run_study

    output = Path(study.output)
    claim(output, "output:")

    signal.signal(signal.SIGTERM, _interrupt)
    study_run = run_study(
        study,
        runs,
        plugins,
        num_jobs=args.jobs or _num_jobs(),
        overwrite=args.overwrite,
        progress=not args.quiet,
    )
    results = collect(study, runs, plugins)
    results.save(output)
    print(f"{study_run.num_done} runs done, {study_run.num_before} were before", file=sys.stderr)
    for name, error in study_run.failed.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    _tables(study, output)
    return 1 if study_run.failed else 0


def _dry_run(study: Study, runs: list[PlannedRun], plugins: PluginManager, args: argparse.Namespace) -> int:
    from pathlib import Path

    from basereward.config.run import stage_runs
    from basereward.study.run import benchmarks_of
    from basereward.training.run_directory import LAST, MODEL

    looked = dry_run(args, plugins)
    benchmarks = benchmarks_of(study, plugins)
    findings = {}
    for planned in runs:
        if planned.seed == study.seeds[0]:  # the other seeds read the same
            if not study.trains:
                findings[planned.cell.name] = looked.evaluation(planned.config, benchmarks)
                continue
            made, parts = list[str](), []
            stages = stage_runs(planned.config)
            for stage in stages:
                asked = benchmarks if stage is stages[-1] else ()
                parts += looked.run(stage, is_new=False, made=made, benchmarks=asked)
                made += [str(Path(stage.output, name)) for name in (LAST, MODEL)]
            findings[planned.cell.name] = parts
    findings["benchmarks"] = [
        looked.benchmark(component, list(item.columns.values()))
        for item, component in zip(study.benchmarks, benchmarks, strict=True)
    ]
    return print_findings(findings)


def _tables(study: Study, directory: Path) -> int:
    from basereward.study.report import PAGE_FILE, claim, write_report
    from basereward.study.results import Results

    results = Results.load(directory)
    claim(directory, "--results")
    tables = write_report(study, results, directory)
    tables.table().print()
    print("", *tables.notes(), sep="\n")
    print(f"report: {directory / PAGE_FILE}", file=sys.stderr)
    return 0


def _list(study: Study, runs: list[PlannedRun]) -> int:
    from basereward.study.worker import DONE_FILE

    for planned in runs:
        place = Path(planned.config.output)
        state = "done" if (place / DONE_FILE).is_file() else "begun" if place.is_dir() else "to do"
        print(f"{state:6} {planned.name}: {place}")
    return 0


def _num_jobs() -> int:
    import torch

    from basereward.hardware.threads import num_cores

    return 1 if torch.cuda.is_available() else num_cores()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # which ends the runs in hand as Ctrl-C does
