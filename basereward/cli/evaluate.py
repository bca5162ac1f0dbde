"""`basereward evaluate`: how good rewards are on comparisons whose order is known, and on benchmarks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from basereward.cli.benchmark_evaluation import open_benchmarks, run_benchmarks
from basereward.cli.command import Command
from basereward.cli.data_arguments import add_data_arguments, given_dataset
from basereward.cli.model_arguments import (
    add_model_arguments,
    load_model,
    print_estimate,
    report_counts,
)
from basereward.cli.report_output import (
    add_output_arguments,
    check_json_argument,
    claimed_directory,
    digest_fact,
    gaps_of,
    print_metrics,
    report_output,
    report_rejected_rows,
    write_json,
)
from basereward.errors import ConfigError
from basereward.storage.atomic import write_text

if TYPE_CHECKING:
    import argparse

    from basereward.data import Dataset
    from basereward.evaluation.results import Result

COMMAND = Command(
    description="Score comparisons whose order is known; report accuracy, calibration and length bias. "
    "With --benchmark, report its official metric; --published adds the variants and what is in print.",
    examples="""\
  basereward evaluate runs/first --data pairs.jsonl --output report
  basereward evaluate runs/first longest --benchmark vl-rewardbench --output report
  basereward evaluate runs/first --benchmark rewardbench=DIR --benchmark rm-bench=DIR
  basereward evaluate --compare runs/first runs/second --benchmark rewardbench
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
    parser.add_argument(
        "--benchmark",
        metavar="NAME[=PATH]",
        dest="benchmarks",
        action="append",
        default=[],
        help="such as vl-rewardbench, and where it lies (default: its data set on the hub); may be repeated",
    )
    parser.add_argument(
        "--data", metavar="DATA", help="JSONL or Parquet file, or a directory of them; or of the benchmark"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, help="score the first N comparisons only, for a quick look"
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="print a benchmark's categories, variants and published scores, too; reports have them anyway",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--gaps", metavar="A,B,...", help="rating gaps to tell accuracy by (default: 0.5,1.5,3)"
    )
    add_output_arguments(parser, "where to leave report, plots, rewards and error gallery")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the numbers, and leave the report."""
    check_json_argument(args)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit is a number of comparisons >= 1, not {args.limit}")
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
    if args.benchmarks:
        return run_benchmarks(args)
    if args.published:
        raise ConfigError("--published goes with --benchmark NAME")
    if len(args.model) > 1:
        raise ConfigError(f"{len(args.model)} models go with --benchmark NAME; without one, give one model")
    return _evaluate(args, args.model[0])


def _evaluate(args: argparse.Namespace, name: str) -> int:
    from basereward.evaluation import evaluate, save_report

    dataset = _limited(given_dataset(args), args.limit)
    output = claimed_directory(args.output)
    model = load_model(args, name)
    if print_estimate(args, model, dataset.read()):
        return 0
    evaluation = evaluate(
        model, dataset, batch_size=args.batch_size, progress=not args.quiet, gaps=gaps_of(args.gaps)
    )
    data = {"data": str(args.data or args.dataset), **({"limit": args.limit} if args.limit else {})}
    facts = {"model": name, **digest_fact(name), **data, **model.computed, **model.facts}
    if output is not None:
        save_report(evaluation, output, facts)
    if not write_json(args.json, {**facts, **evaluation.to_dict()}):
        print_metrics(evaluation)
    report_counts(model)
    report_rejected_rows(evaluation.rejected, "" if output is None else str(output / "rejected.jsonl"))
    report_output(output)
    return 0


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    from basereward.data.first_rows import FirstRows

    return dataset if limit is None else FirstRows(dataset, limit)


def _compare(args: argparse.Namespace, first: str, second: str) -> int:
    from basereward.evaluation.benchmarks import Benchmark
    from basereward.evaluation.model_comparison import PairedMetrics, difference_table
    from basereward.reporting.tables import print_notes

    if args.limit is not None or args.published:
        raise ConfigError("--compare goes without --limit and --published")
    if len(args.benchmarks) > 1:
        raise ConfigError("--compare goes with one benchmark")
    if args.benchmarks:
        [(_, benchmark)] = open_benchmarks(args).values()
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
        print()
        print_notes([" ".join(notes)])
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
