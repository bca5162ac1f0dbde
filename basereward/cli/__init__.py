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
from basereward.errors import BaseRewardError, ColumnWarning, ScaleWarning
from basereward.hardware.threads import set_openmp_defaults
from basereward.plugins.loading import PluginWarning
from basereward.plugins.plugin_manager import manager

COMMANDS = (
    "init",
    "train",
    "plan",
    "plot",
    "study",
    "ensemble",
    "evaluate",
    "audit",
    "score",
    "score-shards",
    "serve",
    "critique",
    "best-of-n",
    "rank",
    "filter",
    "export",
    "import",
    "data",
    "plugins",
    "recipes",
    "show",
    "new-plugin",
    "doctor",
)


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
    for command in COMMANDS:
        module = importlib.import_module(f"basereward.cli.{command.replace('-', '_')}")
        command_parser = subparsers.add_parser(command, **module.COMMAND.parser_options())
        command_parser.set_defaults(run=module.run)
        module.add_arguments(command_parser)
    plugins.emit("basereward_commands", subparsers=subparsers)
    args = parser.parse_args(rest)
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
        if issubclass(category, PluginWarning | ScaleWarning | ColumnWarning):
            print(f"basereward: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place)  # type: ignore[operator]

    return showwarning
