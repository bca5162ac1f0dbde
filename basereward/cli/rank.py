"""`basereward rank`: the responses of each row in the order of their rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.cli.selection import add_selection_arguments, write_selected

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  basereward rank MODEL_DIR samples.jsonl --output ranked.jsonl
      # rows to train a policy or a smaller model on
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    import argparse

    parser = subparsers.add_parser(
        "rank",
        help="rank each row's responses by reward",
        description="Score the responses of each row and write it with them best first, ranked by their "
        "rewards, which are in `meta.rewards`. Ranks that the row had are kept in `meta.given_ranks`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the ranked rows."""
    from basereward.scoring.selection import ranked

    return write_selected(args, ranked)
