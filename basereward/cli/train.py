"""`basereward train`: from a run file to a run directory."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from basereward.cli.command import Command, add_overrides
from basereward.cli.dry_run import add_dry_run, dry_run, print_findings

if TYPE_CHECKING:
    import argparse

    from basereward.config.run import RunConfig
    from basereward.training.stage import TrainResult


COMMAND = Command(
    help="train a reward model as a run file says",
    description="Train a reward model as a run file says. Ctrl-C or SIGTERM ends it after the step in "
    "hand, with a checkpoint to resume from.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run_file", metavar="RUN.toml", help="what to train on what, and how")
    add_overrides(parser, "replace a setting of the file, such as train.lr=1e-5")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--resume", action="store_true", help="go on from the run's newest checkpoint, if it has one"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in the same directory"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_dry_run(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and print where the results are."""
    from basereward.config.files import load_run

    config = load_run(args.run_file, args.overrides)  # before torch, whose import takes seconds
    if args.dry_run:
        return _dry_run(config, args)
    # DDP warns in each process where the model has no unused parameter, which is no reason to warn.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from basereward.training.shutdown import TrainingStopped
    from basereward.training.train import train

    try:
        result = train(config, resume=args.resume, overwrite=args.overwrite, progress=not args.quiet)
    except TrainingStopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"basereward: {stopped}", file=sys.stderr)
        return 128 + stopped.signal_number
    if result.is_main:
        print("\n".join(_summary(result)))
    return 0


def _dry_run(config: RunConfig, args: argparse.Namespace) -> int:
    from pathlib import Path

    from basereward.config.run import stage_runs
    from basereward.plugins.plugin_manager import manager
    from basereward.training.run_directory import LAST, MODEL

    looked = dry_run(args, manager(config.plugins))
    findings, made = {}, list[str]()
    for stage in stage_runs(config):
        is_new = not (args.resume or args.overwrite)
        findings[stage.output] = looked.run(stage, is_new=is_new, made=made)
        made += [str(Path(stage.output, name)) for name in (LAST, MODEL)]
    return print_findings(findings)


def _summary(result: TrainResult) -> list[str]:
    lines = [f"trained {result.num_steps} steps in {result.train_seconds:.1f} s"]
    if best := result.best:
        interval = f"{best['low']:.4f} to {best['high']:.4f}"
        lines.append(
            f"held-out accuracy {best['accuracy']:.4f} ({interval}, {best['num_pairs']} pairs) "
            f"after step {best['step']}"
        )
    if result.num_rejected:
        lines.append(f"{result.num_rejected} rows rejected: {result.run_dir / 'rejected.jsonl'}")
    lines.append(f"model: {result.model_dir}")
    return lines
