"""`basereward rank`: the responses of each row in the order of their rewards."""

from __future__ import annotations

import argparse

from basereward.cli.command import Command
from basereward.cli.selection import add_selection_arguments, write_selected

COMMAND = Command(
    description="Score the responses of each row and write it with them best first, ranked by their "
    "rewards, which are in `meta.rewards`. Ranks that the row had are kept in `meta.given_ranks`.",
    examples="""\
  basereward rank MODEL_DIR samples.jsonl --output ranked.jsonl
      # rows to train a policy or a smaller model on
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the ranked rows."""
    from basereward.scoring.selection import ranked

    return write_selected(args, ranked)
