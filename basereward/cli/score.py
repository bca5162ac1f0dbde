"""`basereward score`: rewards of a prompt's responses, or of every row of a file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from basereward.cli.command import Command
from basereward.cli.data_arguments import add_data_arguments, load_dataset
from basereward.cli.model_arguments import (
    add_model_arguments,
    load_model,
    print_estimate,
    report_counts,
)
from basereward.errors import ConfigError, DataError

COMMAND = Command(
    description="Print the rewards of responses to a prompt, best first; or score every row of a file.",
    examples="""\
  basereward score MODEL_DIR --image cat.png --prompt "What is it?" --response "A cat." --response "A dog."
  basereward score MODEL_DIR --input rows.jsonl --output rewards.jsonl --resume
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser)
    parser.add_argument(
        "--members", action="store_true", help="of an ensemble, also each member's rewards and how far apart"
    )
    one = parser.add_argument_group("one prompt")
    one.add_argument(
        "--prompt", metavar="TEXT", help="<image> marks an image's place; without, images come first"
    )
    one.add_argument("--image", metavar="FILE", action="append", default=[], help="may be repeated")
    one.add_argument("--response", metavar="TEXT", action="append", default=[], help="may be repeated")
    one.add_argument("--json", action="store_true", help="print JSON, in the order of the responses")
    many = parser.add_argument_group("a file")
    many.add_argument(
        "--data",
        "--input",
        metavar="DATA",
        dest="input",
        help="JSONL, a JSON list, Parquet or Arrow; - for JSONL on standard input",
    )
    add_data_arguments(many)
    many.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="JSONL, a line for each row; standard output if not given",
    )
    many.add_argument(
        "--resume", action="store_true", help="go on where an earlier run with the same model stopped"
    )
    many.add_argument("--overwrite", action="store_true", help="replace the output if it exists")


def run(args: argparse.Namespace) -> int:
    """Score, and print or write the rewards."""
    if (args.prompt is None) == (args.input is None):
        raise ConfigError("give either --prompt with --response, or --input")
    if args.input is not None:
        if args.response or args.image or args.json:
            raise ConfigError("--response, --image and --json go with --prompt, not with --input")
        return _score_file(args)
    if args.dataset is not None or args.option or args.media_dir or args.on_bad_row != "skip":
        raise ConfigError("--dataset, --option and --on-bad-row go with --input, not with --prompt")
    if args.output != "-" or args.resume or args.overwrite:
        raise ConfigError("--output, --resume and --overwrite go with --input, not with --prompt")
    if not args.response:
        raise ConfigError("give at least one --response")
    return _score_prompt(args)


def _score_prompt(args: argparse.Namespace) -> int:
    from basereward.comparison import Comparison
    from basereward.scoring.ordered import members_of

    comparison = Comparison(args.prompt, args.response, images=args.image)
    model = _loaded(args)
    if print_estimate(args, model, [comparison]):
        return 0
    [(_, rewards)] = model.score_stream([comparison], batch_size=1)
    if isinstance(rewards, DataError):
        raise rewards
    report_counts(model)
    members = members_of(rewards) if args.members else {}
    if args.json:
        print(json.dumps({"rewards": rewards, **members, **model.computed}))
        return 0

    from basereward.reporting.tables import Row, Table

    columns = [("reward", rewards), *members.get("members", {}).items()]
    if members.get("disagreement"):
        columns.append(("disagreement", members["disagreement"]))
    titles = [*(title for title, _ in columns), "response"]
    rows = [
        Row.of(*(f"{column[number]:+.4f}" for _, column in columns), args.response[number])
        for number in sorted(range(len(rewards)), key=lambda number: -rewards[number])
    ]
    Table(titles, rows, num_labels=0, has_text=True).print()
    return 0


def _loaded(args: argparse.Namespace) -> Any:
    """Load the model, which `--members` needs to be an ensemble."""
    model = load_model(args, args.model)
    if args.members:
        from basereward.scoring.ensemble import Ensemble  # with torch, which a baseline needs not

        if not isinstance(model, Ensemble):
            raise ConfigError(f"--members goes with an ensemble; {args.model} is a single model")
    return model


def _score_file(args: argparse.Namespace) -> int:
    from pathlib import Path

    from basereward.scoring.files import STANDARD, resume_point, score_file

    if args.input != STANDARD and not Path(args.input).is_file():
        raise ConfigError(f"--input {args.input}: there is no such file")
    # Before the model is loaded, which may take minutes.
    resume_point(
        args.input, args.output, batch_size=args.batch_size, resume=args.resume, overwrite=args.overwrite
    )
    dataset = load_dataset(args, args.input, by_row=True)
    model = _loaded(args)
    if print_estimate(args, model, dataset.read()):
        return 0
    counts = score_file(
        model,
        args.input,
        args.output,
        dataset=dataset,
        batch_size=args.batch_size,
        resume=args.resume,
        overwrite=args.overwrite,
        members=args.members,
        progress=not args.quiet,
    )
    report_counts(model)
    if not args.quiet:
        skipped = f", {counts.num_skipped:,} were there already" if counts.num_skipped else ""
        print(
            f"{counts.num_scored:,} rows scored, {counts.num_errors:,} with an error{skipped}",
            file=sys.stderr,
        )
    return 0
