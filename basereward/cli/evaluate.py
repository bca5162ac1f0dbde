"""`basereward evaluate`: how good a model's rewards are on comparisons whose order is known."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli.model_arguments import add_model_arguments, load_model, report_truncated
from basereward.config import Component, value_of
from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from basereward.data import Dataset
    from basereward.evaluation import Evaluation

NO_PLOTS = "no plots: matplotlib is not installed; run pip install 'basereward[plot]'"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="hold a model's rewards against known orders",
        description="Score comparisons whose order is known; report accuracy, calibration and length bias.",
    )
    add_model_arguments(parser)
    parser.add_argument("--data", metavar="PATH", help="JSONL or Parquet file, or a directory of them")
    parser.add_argument(
        "--dataset",
        "--format",
        metavar="NAME",
        help="what reads it, such as basereward or trl (default: told by the rows' fields)",
    )
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the dataset; may be repeated",
    )
    parser.add_argument(
        "--on-bad-row", choices=("skip", "fail"), default="skip", help="default: skip, and list it"
    )
    parser.add_argument(
        "--gaps", metavar="A,B,...", help="rating gaps to tell accuracy by (default: 0.5,1.5,3)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where to leave report, plots, rewards and picture sheet"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the numbers, and leave the report."""
    from basereward.evaluation import evaluate
    from basereward.evaluation.metrics import GAPS

    gaps = GAPS if args.gaps is None else _gaps(args.gaps)
    dataset = _dataset(args)
    output = _directory(args.output)
    model = load_model(args)
    evaluation = evaluate(model, dataset, args.batch_size, not args.quiet, gaps=gaps)
    facts = {"model": str(args.model), "data": str(args.data or args.dataset)}
    if output is not None:
        evaluation.save(output, facts)
    if args.json:
        print(json.dumps({**facts, **evaluation.to_dict()}, ensure_ascii=False))
    else:
        _print(evaluation)
    report_truncated(model)
    if evaluation.rejected:
        where = (
            f"; all in {output / 'rejected.jsonl'}" if output is not None else "; --output DIR lists them all"
        )
        count = len(evaluation.rejected)
        rows = "1 row was rejected" if count == 1 else f"{count:,} rows were rejected"
        print(f"{rows}, the first: {evaluation.rejected[0]}{where}", file=sys.stderr)
    if output is not None:
        from basereward.evaluation import plots

        if not plots.is_available():
            print(NO_PLOTS, file=sys.stderr)
        print(f"report: {output / 'report.md'}", file=sys.stderr)
    return 0


def _dataset(args: argparse.Namespace) -> Dataset:
    options: dict[str, Any] = {}
    for text in args.option:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"--option {text}: write KEY=VALUE")
        options[key] = value_of(value)
    if args.dataset is not None:
        from basereward.plugins import manager

        path = {} if args.data is None else {"path": args.data}
        dataset: Dataset = manager().build("dataset", Component(args.dataset, {**path, **options}))
    elif args.data is None:
        raise ConfigError("give --data PATH, or --dataset NAME for a dataset that needs none")
    elif options:
        raise ConfigError("--option goes with --dataset NAME")
    else:
        from basereward.data import read_comparisons

        dataset = read_comparisons(args.data)
    dataset.on_bad_row = args.on_bad_row
    return dataset


def _gaps(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted(float(gap) for gap in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--gaps {text}: write numbers, such as 0.5,1.5,3") from error


def _directory(output: str | None) -> Path | None:
    """Make the output directory now, rather than find out after the scoring that it can't be made."""
    from pathlib import Path

    if output is None:
        return None
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output}: can't be made: {error.strerror}") from error
    return Path(output)


def _print(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from basereward.evaluation.report import lines

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for line in lines(evaluation.metrics):
        table.add_row(Text(line.name), Text(line.value, style="bold"), Text(line.note, style="dim"))
    Console().print(table)
