"""The command `basereward example-lengths`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; this runs for `basereward --help` too, so that nothing heavy is imported here."""
    parser = subparsers.add_parser(
        "example-lengths",
        help="show how long better and worse responses are",
        description="Show how many characters better and worse responses have on average.",
    )
    parser.add_argument("file", metavar="FILE", help="comparisons in BaseReward's own format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print both means."""
    from basereward.data.native import NativeDataset

    lengths = [
        (len(row.responses[pair.chosen]), len(row.responses[pair.rejected]))
        for row in NativeDataset(args.file)
        for pair in row.pairs()
        if not pair.tie
    ]
    num = max(len(lengths), 1)
    better, worse = (sum(side) / num for side in (zip(*lengths, strict=True) if lengths else ((), ())))
    print(f"{len(lengths)} pairs: {better:.1f} characters the better one, {worse:.1f} the worse")
    return 0
