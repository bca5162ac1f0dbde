"""`basereward init`: a commented run file for a model and data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.cli.command import Command
from basereward.cli.starter_arguments import add_starter_arguments, write_run_file

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    description="Look at a model's settings and the data's first rows, and write a commented run file.",
    examples="""\
  basereward init --model Qwen2.5-VL-3B-Instruct --data pairs.jsonl --eval held-out.jsonl
  basereward init lora.toml --model Qwen2.5-VL-3B-Instruct --data pairs.jsonl --lora 16
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "run_file", metavar="RUN.toml", nargs="?", default="run.toml", help="to write (default: run.toml)"
    )
    add_starter_arguments(parser, required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace a run file that is there")


def run(args: argparse.Namespace) -> int:
    """Write the file, and print what to type next."""
    path = write_run_file(args, args.run_file, overwrite=args.overwrite)
    print(f"wrote {path}; next: basereward train {path}")
    return 0
