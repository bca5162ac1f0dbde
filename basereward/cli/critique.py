"""`basereward critique`: the texts that a critic or a judge writes, once, into the rows they are about."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from basereward.cli.command import Command
from basereward.cli.data_arguments import check_output, load_dataset, read_rows, report_rejected
from basereward.cli.model_arguments import load_model, print_estimate, report_counts
from basereward.cli.selection import add_selection_arguments
from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from basereward.comparison import Comparison
    from basereward.data import Dataset
    from basereward.scoring.reward_model import RewardModel
    from basereward.scoring.writer_judge import WriterJudge

COMMAND = Command(
    help="write a critic's critiques, a judge's reasoned verdicts, or rubrics, into rows",
    description="Write what a critic says about each response into `meta.critiques` of the rows, what a "
    "judge that reasons says about each pair into `meta.verdicts`, or the criteria that a judge has for each "
    "question into `meta.rubric`. They are scored as they stand, edited or not; those that are missing are "
    "written anew.",
    examples="""\
  basereward critique CRITIC_DIR pairs.jsonl --output criticised.jsonl
  basereward evaluate CRITIC_DIR --data criticised.jsonl          # reads these critiques, and writes none
  basereward critique judge.toml pairs.jsonl --output traces.jsonl --traces     # to be learned
  basereward critique criteria.toml pairs.jsonl --output with-rubrics.jsonl     # template = "criteria"
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_selection_arguments(parser)
    parser.add_argument(
        "--traces",
        action="store_true",
        help="write a judge's texts into meta.judgements, for a judge to learn: of each pair and order the "
        "first whose verdict is what the ranks say",
    )


def run(args: argparse.Namespace) -> int:
    """Write the texts."""
    from pathlib import Path

    from basereward.data.conversion import convert
    from basereward.data.curation import Curation
    from basereward.data.writing import open_writer
    from basereward.paradigms.judge_rationales import VERDICTS_KEY
    from basereward.paradigms.rubric import KEY as RUBRIC_KEY
    from basereward.scoring.reward_model import RewardModel
    from basereward.scoring.writer_judge import WriterJudge

    dataset = load_dataset(args, args.data)
    check_output(args.output, [dataset])
    model = load_model(args, args.model)
    if not isinstance(model, RewardModel | WriterJudge) or not model.text_key:
        raise ConfigError(
            f"{args.model} writes no critiques; a model of the paradigm critic does, and a judge with a "
            "template of critiques, of reasoned verdicts, of explained ratings or of criteria"
        )
    if args.traces and model.text_key != VERDICTS_KEY:
        raise ConfigError(f"--traces goes with a judge of reasoned verdicts; {args.model} writes others")
    if print_estimate(args, model, read_rows(dataset)):
        return 0
    with open_writer(Path(args.output), overwrite=args.overwrite) as writer:
        outcome = convert(_criticised(args, dataset, model), Curation([]), writer)
    report_counts(model)
    report_rejected(outcome.num_rejected, outcome.first, "left out")
    if not args.quiet:
        kind = {VERDICTS_KEY: "verdicts", RUBRIC_KEY: "rubrics"}.get(model.text_key, "critiques")
        print(f"{outcome.num_out:,} rows with {kind}: {args.output}", file=sys.stderr)
    return 0


def _criticised(
    args: argparse.Namespace, dataset: Dataset, model: RewardModel | WriterJudge
) -> Iterator[Comparison | DataError]:
    """Yield the rows with their texts, in order; as many are written at once as the model takes."""
    waiting = iter(read_rows(dataset))
    size = max(args.batch_size, model.smallest_batch)
    while batch := list(islice(waiting, size)):
        texts = iter(model.texts([row for row in batch if not isinstance(row, DataError)]))
        for row in batch:
            result: Comparison | DataError = row
            if not isinstance(row, DataError):
                written = next(texts)
                if isinstance(written, DataError):
                    result = row.place.locate(written)
                else:
                    result = _with_texts(row, model.text_key, written, as_traces=args.traces)
            if isinstance(result, DataError) and args.on_bad_row == "fail":
                raise result
            yield result


def _with_texts(row: Comparison, key: str, texts: list[Any], *, as_traces: bool) -> Comparison | DataError:
    """Return a row with its texts; as traces, with those of which a judge may learn."""
    if not as_traces:
        return row.with_meta(**{key: texts})
    from basereward.paradigms.judge_rationales import KEY, right_judgements

    traces = right_judgements(row, texts)
    if not traces:
        return row.place.locate(DataError("no verdict is what the ranks say", field="ranks"))
    return row.with_meta(**{KEY: traces})
