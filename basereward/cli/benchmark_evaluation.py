"""Benchmarks of `basereward evaluate`: their data, and what is printed of their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from basereward.cli.data_arguments import key_values
from basereward.cli.model_arguments import load_model, print_estimate, report_counts
from basereward.cli.report_output import (
    STANDARD,
    claimed_directory,
    digest_fact,
    gaps_of,
    print_metrics,
    report_output,
    report_rejected_rows,
    write_json,
)
from basereward.config.conversion import Component
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import manager

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from basereward.evaluation.benchmarks.run import BenchmarkRun


def run_benchmarks(args: argparse.Namespace) -> int:
    """Evaluate the models on the benchmarks, print the numbers, and leave the reports."""
    from pathlib import Path

    from basereward.evaluation.benchmarks.report import headline_table, save_run
    from basereward.evaluation.benchmarks.run import run_benchmark

    if len(set(args.model)) < len(args.model):
        raise ConfigError("a model is named twice; once is enough")
    benchmarks = open_benchmarks(args)
    is_one = len(benchmarks) == 1
    folders = {
        name: args.output if is_one or args.output is None else str(Path(args.output, name))
        for name in benchmarks
    }
    outputs = {name: claimed_directory(folder) for name, folder in folders.items()}
    models = {name: load_model(args, name) for name in args.model}
    if args.dry_run:
        for _, benchmark in benchmarks.values():
            for model in models.values():
                print_estimate(args, model, benchmark.comparisons())
        return 0
    digests = {name: fact["digest"] for name in models if (fact := digest_fact(name))}
    runs: list[BenchmarkRun] = []
    for name, (path, benchmark) in benchmarks.items():
        run = run_benchmark(
            benchmark,
            models,
            name=name,
            data=path,
            batch_size=args.batch_size,
            progress=not args.quiet,
            gaps=gaps_of(args.gaps),
            limit=args.limit,
            digests=digests,
        )
        runs.append(run)
        if (output := outputs[name]) is not None:
            save_run(run, output)
        if args.json != STANDARD:
            _print_run(run, has_title=not is_one, published=args.published)
    if not is_one and args.json != STANDARD:
        headline_table(runs).print()
    write_json(
        args.json, runs[0].to_dict() if is_one else {"benchmarks": {run.name: run.to_dict() for run in runs}}
    )
    for model in models.values():
        report_counts(model)
    for run in runs:
        _report_run(run, outputs[run.name])
    return 0


def _print_run(run: BenchmarkRun, *, has_title: bool, published: bool) -> None:
    """Print the official metrics, the notes and, where they are asked for, all other numbers."""
    from basereward.evaluation.benchmarks.report import (
        official_table,
        published_table,
        score_table,
    )
    from basereward.evaluation.results import Evaluation
    from basereward.reporting.tables import print_notes

    if has_title:
        print(f"{run.title}\n")
    official_table(run).print()
    print()
    print_notes(run.notes)
    if len(run.entries) == 1 and isinstance(run.entries[0].evaluation, Evaluation):
        print()
        print_metrics(run.entries[0].evaluation)
    if published:
        print()
        score_table(run).print()
        if run.published:
            table, remarks = published_table(run)
            print()
            table.print()
            print()
            print_notes(
                ["* corrected", *(f"[{number}] {remark}" for number, remark in enumerate(remarks, start=1))]
            )
    elif run.published:
        print()
        print_notes([f"--published and the report add variants and {len(run.published)} published rows."])
    if has_title:
        print()


def _report_run(run: BenchmarkRun, output: Path | None) -> None:
    from basereward.evaluation.results import Evaluation

    for entry in run.entries[:1]:
        if isinstance(entry.evaluation, Evaluation):
            where = "" if output is None else str(output / entry.folder / "rejected.jsonl")
            report_rejected_rows(entry.evaluation.rejected, where)
    report_output(output)


def open_benchmarks(args: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """Open the benchmarks, and return each with its path, by its name."""
    from basereward.data import Dataset

    if args.dataset is not None:
        raise ConfigError("--benchmark reads its data itself; leave out --dataset")
    if args.media_dir is not None:
        raise ConfigError("--media-dir is of data sets; write --option images=DIR for a benchmark")
    if args.data is not None and (len(args.benchmarks) > 1 or "=" in args.benchmarks[0]):
        raise ConfigError("--data goes with one benchmark; write --benchmark NAME=PATH for each")
    options = key_values(args.option, "--option")
    benchmarks: dict[str, tuple[str, Any]] = {}
    for given in args.benchmarks:
        name, _, path = given.partition("=")
        if name in benchmarks:
            raise ConfigError(f"benchmark {name} is named twice; once is enough")
        path = path or args.data or _hub_id(name)
        benchmark: Any = manager().build("benchmark", Component(name, {"path": path, **options}))
        if isinstance(data := benchmark.comparisons(), Dataset):
            data.on_bad_row = args.on_bad_row
        benchmarks[name] = (path, benchmark)
    return benchmarks


def _hub_id(name: str) -> str:
    """Return the id of a benchmark on the hub.

    Raises:
        ConfigError: When it isn't there.
    """
    hub_id: str = manager().load("benchmark", name).hub_id
    if not hub_id:
        raise ConfigError(f"benchmark {name} is not on the hub; write --benchmark {name}=PATH, where it lies")
    return hub_id
