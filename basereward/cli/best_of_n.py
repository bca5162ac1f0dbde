"""`basereward best-of-n`: the responses with the highest rewards of each row."""

from __future__ import annotations

import argparse

from basereward.cli.command import Command
from basereward.cli.selection import add_selection_arguments, write_selected
from basereward.errors import ConfigError

COMMAND = Command(
    help="keep each row's best responses",
    description="Score the responses of each row, with its prompt read once, and write the row with its "
    "best ones, best first; `meta.rewards` has their rewards.",
    examples="""\
  basereward best-of-n MODEL_DIR samples.jsonl --output best.jsonl
  basereward best-of-n MODEL_DIR samples.jsonl --num 4 --output best-four.jsonl
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser)
    parser.add_argument("--num", metavar="N", type=int, default=1, help="responses to keep (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Write the best responses."""
    if args.num < 1:
        raise ConfigError(f"--num is a number of responses >= 1, not {args.num}")
    from basereward.scoring.selection import best_of

    return write_selected(args, best_of(args.num))
