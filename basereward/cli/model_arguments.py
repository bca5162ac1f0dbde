"""Arguments that the commands for trained models share: the model, its inputs, the size of batches."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.cli.command import add_device
from basereward.errors import ConfigError
from basereward.protocols import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from basereward.comparison import Comparison
    from basereward.errors import DataError


def add_model_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the arguments that `load_model` reads: of one model, or of any number if `several`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="*" if several else None,
        help="the directory of a model, such as a run's `model`, or of an ensemble; a judge's TOML file, "
        "judge+http://HOST:PORT/v1, or decisions+http://HOST:PORT/v1 of a server of decisions; or a baseline "
        "without a model: longest, shortest, first, random, random:SEED (./longest is a directory of that "
        "name)",
    )
    add_judge_arguments(parser).add_argument(
        "--dry-run", action="store_true", help="print requests, tokens and price, and ask nothing"
    )
    add_running_arguments(parser)


def add_judge_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the arguments that `writer_options` reads, and return their group."""
    judge = parser.add_argument_group("a judge that asks a server, or those of an ensemble")
    judge.add_argument(
        "--allow-upload",
        action="store_true",
        help="let images leave this machine for the server's, and texts too where an ensemble names it",
    )
    judge.add_argument(
        "--max-cost", metavar="X", type=float, help="spend at most X, in the currency of the judge's prices"
    )
    return judge


def writer_options(args: argparse.Namespace) -> dict[str, bool | float | None]:
    """Return the options of judges' writers that the command line sets; None for those that it doesn't."""
    return {"allow_upload": args.allow_upload or None, "max_cost": args.max_cost}


def add_running_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how models are run."""
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="comparisons at once (default: 8)"
    )
    parser.add_argument(
        "--batch-tokens",
        metavar="N",
        type=int,
        help="tokens of a forward pass at most, padding included; a larger batch takes several "
        "(default: no limit)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads that open images and tokenize ahead"
    )
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def report_counts(model: Scorer[list[float]]) -> None:
    """Print to standard error how many responses were cut, as their rewards are of their beginnings alone,
    and the paradigm's statistics, such as the number of verdicts that could not be read.
    """
    if count := model.num_truncated:
        responses = "1 response was" if count == 1 else f"{count:,} responses were"
        print(f"{responses} cut short to fit max_tokens", file=sys.stderr)
    if statistics := model.statistics:
        facts = (f"{name.replace('_', ' ')} {value:,.4g}" for name, value in statistics.items())
        print(f"{', '.join(facts)}", file=sys.stderr)
    for name, text in model.facts.items():
        print(f"{name.replace('_', ' ')}: {text}", file=sys.stderr)


def print_estimate(
    args: argparse.Namespace, model: Scorer[list[float]], comparisons: Iterable[Comparison | DataError]
) -> bool:
    """Print what judging comparisons would take, if that is all that is asked for; tell whether it is.

    Raises:
        ConfigError: When the model asks no writer.
    """
    if not args.dry_run:
        return False
    from basereward.scoring.ensemble import Ensemble
    from basereward.scoring.writer_judge import WriterJudge

    if not (isinstance(model, WriterJudge) or (isinstance(model, Ensemble) and model.judges)):
        raise ConfigError(
            "--dry-run goes with a judge that asks a writer: its TOML file, or judge+http://..."
        )
    for name, value in model.estimate(comparisons).items():
        print(f"{name.replace('_', ' '):<16}{value:>14,.6g}")
    return True


def load_model(args: argparse.Namespace, name: str) -> Scorer[list[float]]:
    """Load a model that the command line names, or a baseline without a model; a directory comes first.

    Raises:
        ModelError: When the directory is incomplete or damaged.
        ConfigError: When batch size or device can't be.
    """
    from basereward.scoring.baselines import baseline_of, is_baseline

    check_batch_size(args)
    if is_baseline(name) and not Path(name).is_dir():
        return baseline_of(name)
    from basereward.scoring import loading

    hide_transformers_progress()
    model = loading.load_scorer(
        name, device=args.device, precision=args.precision, writer_options=writer_options(args)
    )
    report_precision(model)
    limit_batches(model, args)
    return model


def report_precision(model: Scorer[list[float]]) -> None:
    """Print to standard error the precision of products where it isn't fp32, and a warning if it is slow."""
    chosen = [member.precision for member in model.models]
    for text in dict.fromkeys(str(precision) for precision in chosen if precision.name != "fp32"):
        print(f"scoring {text}", file=sys.stderr)
    for text in dict.fromkeys(precision.warning for precision in chosen if precision.warning):
        print(f"basereward: warning: {text}", file=sys.stderr)


def limit_batches(model: Scorer[list[float]], args: argparse.Namespace) -> None:
    """Give a model, or the members of an ensemble, the limits of a forward pass."""
    from basereward.scoring.batching import MicroBatchLimits
    from basereward.scoring.scorer import BatchScorer

    if isinstance(model, BatchScorer):
        model.num_workers = args.threads
        if args.batch_tokens is not None:
            pads = any(member.paradigm.pads for member in model.models)
            model.limits = MicroBatchLimits(args.batch_size, args.batch_tokens, pads=pads)


def check_batch_size(args: argparse.Namespace) -> None:
    """Raise unless the size of batches can be.

    Raises:
        ConfigError: When it can't.
    """
    for option, value, unit in (
        ("--batch-size", args.batch_size, "comparisons"),
        ("--batch-tokens", args.batch_tokens, "tokens"),
        ("--threads", args.threads, "threads"),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{option} is a number of {unit} >= 1, not {value}")


def hide_transformers_progress() -> None:
    """Have transformers load models without a word.

    Its bars and remarks would stand between ours; what matters of them is an error of `load`.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
