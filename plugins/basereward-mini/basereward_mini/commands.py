"""The commands `basereward demo` and `basereward human-ratings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_parsers(subparsers: Any) -> None:
    """Add both commands; nothing heavy is imported before one of them runs."""
    demo = subparsers.add_parser(
        "demo",
        help="train a small reward model on real images and evaluate it on unseen ones",
        description="Train a small vision-language reward model on OpenMoji images and their names, "
        "evaluate it on images and names it has never seen, and score two of them. Takes five minutes "
        "on two cores.",
    )
    demo.add_argument("--output", type=Path, default=Path("runs/demo"), help="run directory; replaced")
    demo.set_defaults(run=_run_demo)
    ratings = subparsers.add_parser(
        "human-ratings",
        help="train on real human ratings of texts, and compare with the human ceiling",
        description="Train a reward model on how favourable people found snippets of film reviews, and print "
        "how often it orders unseen ones as the people do, beside how often a single one of them does.",
    )
    ratings.add_argument(
        "--output", type=Path, default=Path("runs/human-ratings"), help="run directory; replaced"
    )
    ratings.add_argument("--path", help="the sdist vaderSentiment-3.3.2.tar.gz, if it is elsewhere")
    ratings.set_defaults(run=_run_ratings)


def _run_demo(args: Any) -> int:
    from basereward_mini.demo import run

    run(args.output)
    return 0


def _run_ratings(args: Any) -> int:
    from basereward_mini.ratings_study import run

    run(args.output, args.path)
    return 0
