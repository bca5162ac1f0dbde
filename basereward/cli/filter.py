"""`basereward filter`: the rows whose ranks a model agrees with."""

from __future__ import annotations

import argparse

from basereward.cli.command import Command
from basereward.cli.selection import add_selection_arguments, write_selected

COMMAND = Command(
    description="Clean preference data by reward: a row's margin is the smallest difference of rewards "
    "over its pairs that are no ties. Rows that are left out are listed in OUTPUT-files/rejected.jsonl.",
    examples="""\
  basereward filter MODEL_DIR pairs.jsonl --output agreed.jsonl                       # margin above 0
  basereward filter MODEL_DIR pairs.jsonl --min-margin -1 --max-margin 4 --output middle.jsonl
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser)
    parser.add_argument(
        "--min-margin", metavar="X", type=float, default=0.0, help="keep margins above X (default: 0)"
    )
    parser.add_argument("--max-margin", metavar="X", type=float, help="keep margins up to X")
    parser.add_argument("--min-reward", metavar="X", type=float, help="keep rows whose best has X or more")


def run(args: argparse.Namespace) -> int:
    """Write the rows that are kept."""
    from basereward.scoring.selection import agreed

    selection = agreed(min_margin=args.min_margin, max_margin=args.max_margin, min_reward=args.min_reward)
    return write_selected(args, selection)
