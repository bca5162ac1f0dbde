"""`basereward evaluate`: how good rewards are on comparisons whose order is known, and on benchmarks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli.command import Command
from basereward.cli.data_arguments import add_data_arguments, key_values, load_dataset, report_rejected
from basereward.cli.model_arguments import (
    add_model_arguments,
    load_model,
    print_estimate,
    report_counts,
)
from basereward.config.conversion import Component
from basereward.errors import ConfigError
from basereward.storage.atomic import write_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from basereward.data import Dataset
    from basereward.errors import DataError
    from basereward.evaluation import Evaluation
    from basereward.evaluation.results import Result

STANDARD = "-"

COMMAND = Command(
    help="hold rewards against known orders, or against a benchmark",
    description="Score comparisons whose order is known; report accuracy, calibration and length bias. "
    "With --benchmark, report its official metric and what is in print beside it.",
    examples="""\
  basereward evaluate runs/first/model --data pairs.jsonl --output report
  basereward evaluate runs/first/model longest --benchmark mm-rlhf-rewardbench --data DIR --output report
  basereward evaluate --compare runs/first/model runs/second/model --benchmark vl-rewardbench --data DIR
  basereward evaluate --compare report/longest report/shortest
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser, several=True)
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="the paired difference of two models or saved evaluations (directories with rewards.jsonl)",
    )
    parser.add_argument("--benchmark", metavar="NAME", help="such as vl-rewardbench; --data is where it lies")
    parser.add_argument("--data", metavar="PATH", help="JSONL or Parquet file, or a directory of them")
    add_data_arguments(parser)
    parser.add_argument(
        "--gaps", metavar="A,B,...", help="rating gaps to tell accuracy by (default: 0.5,1.5,3)"
    )
    add_output_arguments(parser, "where to leave report, plots, rewards and error gallery")


def add_output_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--output`, whose help is given, and `--json`."""
    parser.add_argument("--output", metavar="DIR", help=what)
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const=STANDARD,
        help="write JSON to the file; without one, print JSON instead of a table",
    )


def check_json_argument(args: argparse.Namespace) -> None:
    """Refuse a `--json` that would replace something else than a report."""
    if args.json not in (None, STANDARD):
        from pathlib import Path

        from basereward.cli.report_directory import check_json

        check_json(Path(args.json))


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the numbers, and leave the report."""
    check_json_argument(args)
    if args.compare is not None:
        if args.model:
            raise ConfigError("--compare takes the two models itself; leave out the others")
        if args.gaps is not None:
            raise ConfigError("--gaps does not go with --compare")
        return _compare(args, *args.compare)
    if not args.model:
        raise ConfigError(
            "give a model directory or a baseline (longest, shortest, first, random), or --compare A B"
        )
    if args.benchmark is not None:
        return _run_benchmark(args)
    if len(args.model) > 1:
        raise ConfigError(f"{len(args.model)} models go with --benchmark NAME; without one, give one model")
    return _evaluate(args, args.model[0])


def _evaluate(args: argparse.Namespace, name: str) -> int:
    from basereward.evaluation import evaluate, save_report

    dataset = given_dataset(args)
    output = claimed_directory(args.output)
    model = load_model(args, name)
    if print_estimate(args, model, dataset.read()):
        return 0
    evaluation = evaluate(
        model, dataset, batch_size=args.batch_size, progress=not args.quiet, gaps=_gaps(args.gaps)
    )
    facts = {"model": name, "data": str(args.data or args.dataset), **model.computed, **model.facts}
    if output is not None:
        save_report(evaluation, output, facts)
    if not write_json(args.json, {**facts, **evaluation.to_dict()}):
        _print_metrics(evaluation)
    report_counts(model)
    _report_rejected(evaluation.rejected, "" if output is None else str(output / "rejected.jsonl"))
    report_output(output)
    return 0


def _run_benchmark(args: argparse.Namespace) -> int:
    from basereward.evaluation.benchmarks.report import published_table, save_run, score_table
    from basereward.evaluation.benchmarks.run import run_benchmark
    from basereward.evaluation.results import Evaluation

    if len(set(args.model)) < len(args.model):
        raise ConfigError("a model is named twice; once is enough")
    benchmark = _benchmark(args)
    output = claimed_directory(args.output)
    models = {name: load_model(args, name) for name in args.model}
    if args.dry_run:
        for model in models.values():
            print_estimate(args, model, benchmark.comparisons())
        return 0
    run = run_benchmark(
        benchmark,
        models,
        name=args.benchmark,
        data=str(args.data),
        batch_size=args.batch_size,
        progress=not args.quiet,
        gaps=_gaps(args.gaps),
    )
    if output is not None:
        save_run(run, output)
    if not write_json(args.json, run.to_dict()):
        score_table(run).print()
        print("", *run.notes, sep="\n")
        if len(run.entries) == 1 and isinstance(run.entries[0].evaluation, Evaluation):
            print()
            _print_metrics(run.entries[0].evaluation)
        if run.published:
            table, remarks = published_table(run)
            print()
            table.print()
            print(
                "\n* corrected",
                *(f"[{number}] {remark}" for number, remark in enumerate(remarks, start=1)),
                sep="\n",
            )
    for model in models.values():
        report_counts(model)
    for entry in run.entries[:1]:
        if isinstance(entry.evaluation, Evaluation):
            where = "" if output is None else str(output / entry.folder / "rejected.jsonl")
            _report_rejected(entry.evaluation.rejected, where)
    report_output(output)
    return 0


def _compare(args: argparse.Namespace, first: str, second: str) -> int:
    from basereward.evaluation.benchmarks import Benchmark
    from basereward.evaluation.model_comparison import PairedMetrics, difference_table

    if args.benchmark is not None:
        benchmark = _benchmark(args)
        results = [_results(args, name, benchmark.comparisons()) for name in (first, second)]
        # A benchmark that is no `Benchmark` gives its report only, which has no units to pair.
        metrics = (
            PairedMetrics.of_benchmark(benchmark, *results)
            if isinstance(benchmark, Benchmark)
            else PairedMetrics.of_results(*results)
        )
    else:
        metrics = PairedMetrics.of_results(_results(args, first, None), _results(args, second, None))
    differences = metrics.differences()
    table = difference_table(first, second, differences)
    facts = {
        "first": first,
        "second": second,
        "num_comparisons": metrics.num,
        "num_left_out": metrics.num_left_out,
    }
    output = claimed_directory(args.output)
    whole = {**facts, "differences": {item.name: item.to_dict() for item in differences}}
    notes = (
        f"Of {metrics.num:,} comparisons that both have scored; {metrics.num_left_out:,} are left out.",
        "A - B: with its 95 % interval, by paired bootstrap of groups. p: McNemar's exact test of what",
        "only one of them has right; it takes units to be independent of each other.",
    )
    if output is not None:
        text = ["# A - B", "", table.markdown(), "", *notes]
        write_text(output / "compare.md", "\n".join(text) + "\n")
        write_json(str(output / "compare.json"), whole)
        print(f"report: {output / 'compare.md'}", file=sys.stderr)
    if not write_json(args.json, whole):
        table.print()
        print("", *notes, sep="\n")
    return 0


def _results(args: argparse.Namespace, name: str, data: Dataset | None) -> list[Result]:
    """Return the results of a saved evaluation, or those of a model on the data."""
    from basereward.evaluation import evaluate
    from basereward.evaluation.model_comparison import is_saved, read_results

    if is_saved(name):
        return read_results(name)
    if data is None:
        if args.data is None and args.dataset is None:
            raise ConfigError(
                f"{name} is no saved evaluation (a directory with rewards.jsonl); "
                "for a model, give --data PATH too"
            )
        data = given_dataset(args)
    model = load_model(args, name)
    evaluation = evaluate(model, data, batch_size=args.batch_size, progress=not args.quiet)
    report_counts(model)
    return list(evaluation.results)


def given_dataset(args: argparse.Namespace) -> Dataset:
    """Open the data of `--data` and `--dataset`.

    Raises:
        ConfigError: When neither is given.
    """
    if args.data is None and args.dataset is None:
        raise ConfigError("give --data PATH, or --dataset NAME for a dataset that needs none")
    return load_dataset(args, args.data)


def _benchmark(args: argparse.Namespace) -> Any:
    from basereward.data import Dataset
    from basereward.plugins.plugin_manager import manager

    if args.data is None:
        raise ConfigError(f"--benchmark {args.benchmark} needs --data PATH, where it lies")
    if args.dataset is not None:
        raise ConfigError("--benchmark reads its data itself; leave out --dataset")
    options = key_values(args.option, "--option")
    benchmark: Any = manager().build("benchmark", Component(args.benchmark, {"path": args.data, **options}))
    if isinstance(data := benchmark.comparisons(), Dataset):
        data.on_bad_row = args.on_bad_row
    return benchmark


def _gaps(text: str | None) -> tuple[float, ...]:
    from basereward.evaluation.metrics import GAPS

    try:
        return GAPS if text is None else tuple(sorted(float(gap) for gap in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--gaps {text}: write numbers, such as 0.5,1.5,3") from error


def claimed_directory(output: str | None) -> Path | None:
    """Claim the output directory now, rather than find out after the scoring that it can't be written."""
    from pathlib import Path

    from basereward.cli.report_directory import claim_reports

    if output is None:
        return None
    claim_reports(Path(output))
    return Path(output)


def write_json(target: str | None, report: Mapping[str, Any]) -> bool:
    """Write JSON where it was asked for; tell whether that was standard output."""
    from pathlib import Path

    if target == STANDARD:
        print(json.dumps(report, ensure_ascii=False))
    elif target is not None:
        write_text(Path(target), json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return target == STANDARD


def _report_rejected(rejected: Sequence[DataError], where: str) -> None:
    if rejected:
        note = f"; all in {where}" if where else "; --output DIR lists them all"
        report_rejected(len(rejected), rejected[0], note=note)


def report_output(output: Path | None) -> None:
    """Print to standard error where the report is, if there is one."""
    if output is None:
        return
    name = "report.html" if (output / "report.html").is_file() else "report.md"
    print(f"report: {output / name}", file=sys.stderr)


def _print_metrics(evaluation: Evaluation) -> None:
    from basereward.evaluation.report import metric_table

    metric_table(evaluation).print(show_titles=False, styles=("", "bold", "dim"))
