"""The part that the commands share which score rows and write some of them, or parts of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from basereward.cli.data_arguments import add_data_arguments, check_output, load_dataset, read_rows
from basereward.cli.model_arguments import (
    add_model_arguments,
    load_model,
    print_estimate,
    report_counts,
)

if TYPE_CHECKING:
    import argparse

    from basereward.scoring.selection import Selection


def add_selection_arguments(parser: argparse.ArgumentParser, *, needs_output: bool = True) -> None:
    """Add model, data, and where the rows go."""
    add_model_arguments(parser)
    parser.add_argument("data", metavar="DATA", help="a file or directory of comparisons")
    add_data_arguments(parser)
    help_text = "JSONL or Parquet, in our own format"
    parser.add_argument("--output", metavar="FILE", required=needs_output, help=help_text)
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")


def write_selected(args: argparse.Namespace, selection: Selection) -> int:
    """Score the rows and write what a selection keeps; what it leaves out is listed beside the output."""
    from pathlib import Path

    from basereward.data.conversion import convert
    from basereward.data.curation import Curation
    from basereward.data.writing import open_writer
    from basereward.reporting.progress import progress_bar
    from basereward.scoring.selection import selected

    dataset = load_dataset(args, args.data)
    check_output(args.output, [dataset])
    model = load_model(args, args.model)
    if print_estimate(args, model, read_rows(dataset)):
        return 0
    with (
        open_writer(Path(args.output), overwrite=args.overwrite) as writer,
        progress_bar("scoring", dataset.num_rows, is_shown=not args.quiet) as advance,
    ):
        results = selected(model, read_rows(dataset), selection, batch_size=args.batch_size, advance=advance)
        outcome = convert(results, Curation([]), writer)
    report_counts(model)
    if not args.quiet:
        first = "" if outcome.first is None else f", the first: {outcome.first}"
        print(
            f"{outcome.num_out:,} of {outcome.num_in:,} rows: {args.output}; "
            f"{outcome.num_rejected:,} left out{first}",
            file=sys.stderr,
        )
    return 0
