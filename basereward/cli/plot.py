"""`basereward plot`: training curves of several runs in one image."""

from __future__ import annotations

import argparse
from pathlib import Path

from basereward.cli.command import Command

COMMAND = Command(
    description="Draw loss, accuracy, held-out accuracy, learning rate and speed of trainings into one "
    "image, a line to each. They may still be running.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="directory of a run, or its log.jsonl"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs.png"),
        metavar="FILE",
        help="the image: .png, .svg or .pdf (default: runs.png)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the output also where it is no image of this command",
    )
    parser.add_argument(
        "--metric",
        dest="metrics",
        action="append",
        metavar="NAME",
        help="draw this instead: any number of log.jsonl, such as grad_norm or lr.head; of held-out data as "
        "held-out.accuracy; may be repeated",
    )
    parser.add_argument(
        "--x", choices=("steps", "pairs", "seconds"), default="steps", help="the axis (default: steps)"
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the running mean that is kept at each record, from 0 up to 1 (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Draw, and print where the image is."""
    from basereward.storage.outputs import check_file, check_is_no_input
    from basereward.training.plots import GENERATOR, plot_runs, save_runs
    from basereward.training.run_directory import LOG_FILE

    check_is_no_input(args.output, "--output", [*args.runs, *(run / LOG_FILE for run in args.runs)])
    check_file(args.output, "--output", mark=GENERATOR.encode(), overwrite=args.overwrite)
    figure = plot_runs(args.runs, metrics=args.metrics or (), axis=args.x, smoothing=args.smoothing)
    save_runs(figure, args.output)
    print(args.output)
    return 0
