"""The command line: a file for each command; of it, `run` alone imports heavy modules."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from basereward._version import __version__
from basereward.cli.build_notice import say_once_what_was_left_out
from basereward.errors import BaseRewardError, ColumnWarning, RefusedRowsWarning, ScaleWarning
from basereward.hardware.threads import set_openmp_defaults
from basereward.plugins.loading import PluginWarning
from basereward.plugins.plugin_manager import manager

COMMANDS = {
    "init": "write a run file for a model and data",
    "train": "train a reward model as a run file says",
    "plan": "say what a training will take: memory, FLOPs, time, money",
    "plot": "draw the courses of trainings into one image",
    "study": "run a grid of trainings with several seeds, and write its tables",
    "ensemble": "make one model of several",
    "evaluate": "hold rewards against known orders, or against a benchmark",
    "audit": "find out what a model looks at and what it pays for",
    "score": "score responses to a prompt, or a file of them",
    "score-shards": "score many files with many workers",
    "serve": "answer requests for rewards over HTTP",
    "critique": "write critiques, a judge's reasoned verdicts, or rubrics, into rows",
    "best-of-n": "keep each row's best responses",
    "rank": "rank each row's responses by reward",
    "filter": "keep rows whose ranks the model agrees with",
    "export": "write a model for transformers, TRL or vLLM",
    "import": "read a reward model of another tool",
    "data": "inspect, convert, deduplicate and curate preference data",
    "plugins": "list plugins and what they provide",
    "recipes": "list the run files and studies that are installed, or print one",
    "show": "show a component and its options, or a run file's settings",
    "new-plugin": "write a plugin of your own to start from",
    "doctor": "say what is installed and what works here",
    "completion": "print what completes commands and options in a shell",
}
"""The commands in the order of the help, with their lines there, so that no module is imported for them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0 if it did its work, 2 where the input is at fault.

    Args:
        arguments: Of the command; None for those of the process, whose threads then wait as
            `set_openmp_defaults` says.
    """
    if arguments is None:
        set_openmp_defaults()
        say_once_what_was_left_out()
    with warnings.catch_warnings():
        warnings.showwarning = _shorten(warnings.showwarning)  # type: ignore[assignment]
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        except BaseRewardError as error:
            # Of processes that train together, one may be alone in not finding its data.
            rank = os.environ.get("RANK", "0")
            speaker = "basereward" if rank == "0" else f"basereward: process {rank}"
            print(f"{speaker}: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("basereward: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as error:  # a full disk, a directory that may not be written: no bug of ours
            print(f"basereward: error: {error}", file=sys.stderr)
            return 2


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the parser of one of our commands, whose module is imported."""
    module = importlib.import_module(f"basereward.cli.{command.replace('-', '_')}")
    options = module.COMMAND.parser_options()
    parser = subparsers.add_parser(command, help=COMMANDS[command], allow_abbrev=False, **options)
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)


def _run(arguments: list[str]) -> int:
    modules, rest = _modules(arguments)
    plugins = manager(modules)
    parser = argparse.ArgumentParser(
        prog="basereward", description="Train, evaluate and use multimodal reward models.", allow_abbrev=False
    )
    parser.add_argument(
        "-p",
        metavar="MODULE",
        dest="attached",
        help="load a module of yours as a plugin; may be repeated, and come after the command too",
    )
    parser.add_argument("--version", action="version", version=f"basereward {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    asked = next((argument for argument in rest if not argument.startswith("-")), None)
    for command, help in COMMANDS.items():
        if command == asked:
            add_command(subparsers, command)
        else:
            subparsers.add_parser(command, help=help)
    plugins.emit("basereward_commands", subparsers=subparsers)
    if asked is not None and rest[0] == asked and asked not in subparsers.choices:
        from basereward.config.conversion import did_you_mean

        parser.error(f"there is no command {asked!r}{did_you_mean(asked, subparsers.choices)}")
    args, unknown = parser.parse_known_args(rest)
    if unknown:  # argparse itself would show the usage of `basereward`
        failed = subparsers.choices.get(args.command, parser)
        failed.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.attached is not None:
        parser.error(f"write -p {args.attached}, with a space")
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    return int(args.run(args) or 0)


def _modules(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the modules named by `-p MODULE`, and the other arguments.

    It has to happen before parsing, since a module may add commands; and not by argparse, which would take a
    response that begins with "-p" for this option.
    """
    modules, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        module = next(remaining, None) if argument == "-p" else None
        if module is not None:
            modules.append(module)
        else:
            rest.append(argument)
    return modules, rest


def _shorten(show: object) -> object:
    """Return a `warnings.showwarning` that shows warnings of ours without a line of our code."""

    def showwarning(message: Warning | str, category: type[Warning], *place: object) -> None:
        if issubclass(category, PluginWarning | ScaleWarning | ColumnWarning | RefusedRowsWarning):
            print(f"basereward: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place)  # type: ignore[operator]

    return showwarning
