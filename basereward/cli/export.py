"""`basereward export`: a model as a checkpoint that transformers, TRL and vLLM read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from basereward.cli.command import Command
from basereward.storage.outputs import check_model_output

COMMAND = Command(
    description="Write a model as XForSequenceClassification, whose only logit is the reward. With a linear "
    "head X is its backbone's; a head of several layers needs RewardForSequenceClassification, a class of "
    "basereward that transformers loads after basereward.interop.sequence_classifier.register(). For vLLM "
    "such a head becomes the dense layers of an embedding of one number, the reward. A judge of verdicts "
    "becomes a model of typed decisions, for transformers' pipeline of that name.",
    examples="""\
  basereward export MODEL_DIR --output checkpoint
  basereward export MODEL_DIR --format vllm --output checkpoint
  basereward export JUDGE_DIR --format decision --output decider
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", help="the directory of a model")
    parser.add_argument("--format", choices=("hf", "vllm", "decision"), default="hf", help="default: hf")
    parser.add_argument("--output", metavar="DIR", required=True, help="an earlier export is replaced")


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint."""
    from transformers.utils import logging

    from basereward.interop.decision_export import export_decisions
    from basereward.interop.exporting import export_model
    from basereward.scoring.reward_model import RewardModel

    logging.disable_progress_bar()
    # An earlier export is made anew of its model; it needs no word of the user to be replaced.
    check_model_output(Path(args.output), [args.model], overwrite=True)
    # In bf16 weights stay as they are saved.
    model = RewardModel.load(args.model, device="cpu", precision="bf16")
    if args.format == "decision":
        export = export_decisions(model, args.output)
    else:
        export = export_model(model, args.output, args.format)
    print(f"{export.architecture}: {args.output}")
    if export.offset:
        print(
            f"its logits are the rewards less {export.offset:.6g}: such a checkpoint has no bias. No order "
            "or difference of rewards changes.",
            file=sys.stderr,
        )
    return 0
