"""What the commands that use a trained model have in common: which model, on what, in what batches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from basereward.model import RewardModel


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `load_model` reads."""
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory, such as a run's `model`")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="comparisons at once (default: 8)"
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="cpu, cuda, cuda:1, ... (default: cuda if there is one)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def report_truncated(model: RewardModel) -> None:
    """Say on standard error how many responses were cut, since their rewards are of what was left."""
    if count := model.num_truncated:
        responses = "1 response was" if count == 1 else f"{count:,} responses were"
        print(f"{responses} cut short to fit max_tokens", file=sys.stderr)


def load_model(args: argparse.Namespace) -> RewardModel:
    """Load the model that the command line names.

    Raises:
        ModelError: When the directory is incomplete or damaged.
        ConfigError: When batch size or device can't be.
    """
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size is a number of comparisons >= 1, not {args.batch_size}")
    import torch
    from transformers.utils import logging

    from basereward.model import RewardModel

    # Its bars and remarks would stand between ours; what matters of them is an error of `load`.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Made once, since a device that isn't there is found out only then.
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: {reason}") from error
    return RewardModel.load(args.model, device=name)
