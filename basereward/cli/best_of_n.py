"""`basereward best-of-n`: the responses with the highest rewards of each row, and their gold rewards."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from basereward.cli.command import Command
from basereward.cli.selection import add_selection_arguments, write_selected
from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse

RATINGS = "ratings"
"""What `--gold` calls the ratings of the rows."""

COMMAND = Command(
    description="Score the responses of each row, with its prompt read once, and write the row with its "
    "best ones, best first; `meta.rewards` has their rewards. With --gold, report instead what another "
    "reward makes of the choice, as n grows.",
    examples="""\
  basereward best-of-n MODEL_DIR samples.jsonl --output best.jsonl
  basereward best-of-n MODEL_DIR samples.jsonl --num 4 --output best-four.jsonl
  basereward best-of-n MODEL_DIR samples.jsonl --gold LARGER_MODEL_DIR --report overoptimization
  basereward best-of-n MODEL_DIR rated.jsonl --gold ratings --max-n 4
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser, needs_output=False)
    parser.add_argument("--num", metavar="N", type=int, help="responses to keep (default: 1)")
    parser.add_argument(
        "--gold",
        metavar="MODEL",
        help="a model, ensemble or baseline that judges what MODEL chooses of n responses, n = 1, 2, 4, ...; "
        "or `ratings`, those that the rows have (./ratings is a directory of that name)",
    )
    parser.add_argument(
        "--max-n",
        metavar="N",
        type=int,
        help="with --gold: the largest n (default: the number of responses that most rows have)",
    )
    parser.add_argument("--report", metavar="DIR", help="with --gold: where to leave the report")


def run(args: argparse.Namespace) -> int:
    """Write the best responses, or report proxy against gold reward."""
    if args.gold is not None:
        return _against_gold(args)
    for option, value in (("--max-n", args.max_n), ("--report", args.report)):
        if value is not None:
            raise ConfigError(f"{option} goes with --gold MODEL")
    if args.output is None:
        raise ConfigError("give --output FILE, or --gold MODEL to report on the choice")
    num = 1 if args.num is None else args.num
    if num < 1:
        raise ConfigError(f"--num is a number of responses >= 1, not {num}")
    from basereward.scoring.selection import best_of

    return write_selected(args, best_of(num))


def _against_gold(args: argparse.Namespace) -> int:
    from pathlib import Path

    from basereward.cli.data_arguments import load_dataset, read_rows, report_rejected
    from basereward.cli.model_arguments import load_model, report_counts
    from basereward.cli.report_directory import claim_reports
    from basereward.evaluation.overoptimization import GivenRatings, overoptimization
    from basereward.evaluation.overoptimization_report import curve_notes, curve_table, save_overoptimization
    from basereward.reporting.progress import progress_bar
    from basereward.reporting.tables import print_notes

    for option, value in (("--output", args.output), ("--num", args.num)):
        if value is not None:
            raise ConfigError(f"{option} does not go with --gold, which writes no rows; use --report DIR")
    if args.report is not None:
        claim_reports(Path(args.report), "--report")
    dataset = load_dataset(args, args.data)
    is_given = args.gold == RATINGS and not Path(RATINGS).is_dir()
    models = load_model(args, args.model), GivenRatings() if is_given else load_model(args, args.gold)
    with progress_bar("scoring", None, is_shown=not args.quiet) as advance:
        result = overoptimization(
            *models, read_rows(dataset), max_num=args.max_n, batch_size=args.batch_size, advance=advance
        )
    if args.report is not None:
        facts = {"proxy": args.model, "gold": args.gold, "data": args.data, **models[0].computed}
        save_overoptimization(result, args.report, facts)
    curve_table(result).print()
    print()
    print_notes(curve_notes(result))
    for model in models:
        report_counts(model)
    if result.rejected:
        report_rejected(len(result.rejected), result.rejected[0], "could not be used")
    if args.report is not None:
        print(f"report: {Path(args.report) / 'report.html'}", file=sys.stderr)
    return 0
