"""`basereward train`: from a run file to a run directory."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from basereward.cli.command import Command, add_overrides
from basereward.cli.dry_run import add_dry_run, dry_run, print_findings
from basereward.cli.starter_arguments import add_starter_arguments, write_run_file
from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from basereward.config.run import RunConfig
    from basereward.training.stage import TrainResult


COMMAND = Command(
    description="Train a reward model as a run file says. Ctrl-C or SIGTERM ends it after the step in "
    "hand, with a checkpoint to resume from.",
    examples="""\
  basereward train run.toml --set train.lr=1e-5
  basereward train --model Qwen2.5-VL-3B-Instruct --data pairs.jsonl --eval held-out.jsonl --lora 16
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "run_file",
        metavar="RUN.toml",
        nargs="?",
        help="what to train on what, and how; or give --model and --data",
    )
    starter = parser.add_argument_group(
        "without a run file", "one is written, as `basereward init` does, and trained"
    )
    add_starter_arguments(starter, required=False)
    add_overrides(parser, "replace a setting of the file, such as train.lr=1e-5")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--resume", action="store_true", help="go on from the run's newest checkpoint, if it has one"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier run in the same directory, and its run file where one is written",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_dry_run(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and print where the results are."""
    from basereward.config.files import load_run

    config = load_run(_run_file(args), args.overrides)  # before torch, whose import takes seconds
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


def _run_file(args: argparse.Namespace) -> str:
    """Return the run file that was given, or write one of the model and the data."""
    given = [f"--{name}" for name in ("model", "data", "lora", "output") if getattr(args, name)]
    given += ["--media-dir"] if args.media_dir else []
    given += ["--eval"] if args.held_out else []
    if args.run_file is not None:
        if given:
            raise ConfigError(f"{given[0]} goes without a run file; to change {args.run_file}, use --set")
        return str(args.run_file)
    if not (args.model and args.data):
        raise ConfigError("give a run file, or --model DIR and --data PATH")
    path = write_run_file(args, None, overwrite=args.overwrite)
    if os.environ.get("RANK", "0") == "0":
        print(f"run file: {path}")
    return str(path)


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
    lines = [
        f"trained {result.num_steps} step{'s' * (result.num_steps != 1)} in {result.train_seconds:.1f} s"
    ]
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
