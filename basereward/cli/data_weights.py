"""`basereward data weights`: rows with weights that are low where the text alone gives the answer away."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli.data_arguments import (
    add_data_arguments,
    check_output,
    load_dataset,
    read_rows,
    report_rejected,
)
from basereward.cli.model_arguments import add_model_arguments

if TYPE_CHECKING:
    import argparse

    from basereward.data import Dataset

DESCRIPTION = (
    "Score rows without their images by MODEL, a model of text alone that was trained on other rows, and "
    "write them with weights: a pair counts as much as MODEL takes its wrong order for likely. Weights "
    "are 1 on average, and every loss reads them."
)


def add_parser(commands: Any) -> None:
    """Add the command to those of `basereward data`."""
    parser = commands.add_parser(
        "weights", help="weigh rows down whose text gives the answer away", description=DESCRIPTION
    )
    add_model_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="JSONL or Parquet file, or a directory")
    add_data_arguments(parser)
    parser.add_argument(
        "--output", metavar="FILE", required=True, help="where to write the rows: NAME.jsonl or NAME.parquet"
    )
    parser.add_argument(
        "--floor", metavar="W", type=float, default=0.05, help="weight of a certain pair (default: 0.05 of 1)"
    )
    parser.add_argument(
        "--pairs",
        choices=("together", "each"),
        default="together",
        help="a ranking is one row with the mean weight of its pairs (default), or each pair a row",
    )
    parser.add_argument(
        "--images",
        choices=("copy", "keep"),
        default="copy",
        help="copy images beside the JSONL (default), or keep files where they are",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Weigh the rows, write them, and print how many pairs are left in effect."""
    from itertools import chain
    from pathlib import Path

    from basereward.cli.model_arguments import load_model, report_counts
    from basereward.data.conversion import REPORT_FILE, convert
    from basereward.data.curation import Curation
    from basereward.data.writing import open_writer
    from basereward.reporting.progress import progress_bar
    from basereward.scoring.pair_weights import pair_weights, weighted
    from basereward.storage.atomic import write_text

    datasets = [_opened(args, path) for path in args.paths or [None]]
    check_output(args.output, datasets, args.model)
    model = load_model(args, args.model)
    with open_writer(Path(args.output), images=args.images, overwrite=args.overwrite) as writer:
        with progress_bar("scoring", None, is_shown=not args.quiet) as advance:
            rows = chain.from_iterable(map(read_rows, datasets))
            result = pair_weights(model, rows, floor=args.floor, batch_size=args.batch_size, advance=advance)
        rows = chain.from_iterable(map(read_rows, datasets))
        outcome = convert(weighted(rows, result.weights), Curation([]), writer)
    facts = {
        "proxy": args.model,
        "floor": args.floor,
        "num_pairs": result.num_pairs,
        "proxy_accuracy": result.accuracy,
        "temperature": result.temperature,
        "num_effective_pairs": result.num_effective,
    }
    report = json.dumps({**outcome.to_dict(), **facts}, ensure_ascii=False, indent=1)
    write_text(writer.files / REPORT_FILE, report + "\n")
    if args.json:
        print(json.dumps({**outcome.to_dict(), **facts}, ensure_ascii=False))
    elif result.accuracy is None:
        print("no pairs: all responses of a row are tied, so that all rows weigh the same")
    else:
        print(
            f"{result.num_pairs:,} pairs, of which the proxy orders {result.accuracy:.3f}; weighted they are "
            f"as many as {result.num_effective:,.0f} of equal weight (temperature {result.temperature:.3g})"
        )
    report_counts(model)
    report_rejected(outcome.num_rejected, outcome.first, "can't be used")
    print(f"{outcome.num_out:,} rows: {writer.path}", file=sys.stderr)
    return 0


def _opened(args: argparse.Namespace, path: str | None) -> Dataset:
    from basereward.data.ranking_pairs import RankingPairs

    dataset = load_dataset(args, path)
    return dataset if args.pairs == "together" else RankingPairs(dataset, "each")
