"""`basereward critique`: critiques that a critic writes, once, into the rows they are about."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from basereward.cli.command import Command
from basereward.cli.data_arguments import check_output, load_dataset, report_rejected
from basereward.cli.model_arguments import load_model, report_counts
from basereward.cli.selection import add_selection_arguments
from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from basereward.comparison import Comparison
    from basereward.data import Dataset
    from basereward.scoring.reward_model import RewardModel

COMMAND = Command(
    help="write a critic's critiques into rows, to be edited and scored later",
    description="Write what a critic says about each response into `meta.critiques` of the rows. A row's "
    "critiques are scored as they stand, edited or not; those that are null are written anew.",
    examples="""\
  basereward critique CRITIC_DIR pairs.jsonl --output criticised.jsonl
  basereward evaluate CRITIC_DIR --data criticised.jsonl          # reads these critiques, and writes none
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the critiques."""
    from pathlib import Path

    from basereward.data.conversion import convert
    from basereward.data.curation import Curation
    from basereward.data.writing import open_writer
    from basereward.scoring.reward_model import RewardModel

    dataset = load_dataset(args, args.data)
    check_output(args.output, [dataset])
    model = load_model(args, args.model)
    if not isinstance(model, RewardModel) or not model.paradigm.writes_critiques:
        raise ConfigError(f"{args.model} writes no critiques; a model of the paradigm critic does")
    with open_writer(Path(args.output), overwrite=args.overwrite) as writer:
        outcome = convert(_criticised(args, dataset, model), Curation([]), writer)
    report_counts(model)
    report_rejected(outcome.num_rejected, outcome.first, "left out")
    if not args.quiet:
        print(f"{outcome.num_out:,} rows with critiques: {args.output}", file=sys.stderr)
    return 0


def _criticised(
    args: argparse.Namespace, dataset: Dataset, model: RewardModel
) -> Iterator[Comparison | DataError]:
    from basereward.paradigms.critic import KEY

    for row in dataset.read():
        result = row
        if not isinstance(row, DataError):
            try:
                result = row.with_meta(**{KEY: model.critiques(row)})
            except DataError as error:
                result = row.place.locate(error)
        if isinstance(result, DataError) and args.on_bad_row == "fail":
            raise result
        yield result
