"""The command line: one file a command, with `add_parser` and `run`; what is heavy is imported in `run`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import warnings
from typing import TYPE_CHECKING

from basereward import __version__
from basereward.errors import BaseRewardError
from basereward.plugins import PluginWarning, manager

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("train", "evaluate", "score", "plugins", "show", "doctor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0 if it did its work, 2 where the input is at fault."""
    with warnings.catch_warnings():
        warnings.showwarning = _shorten(warnings.showwarning)  # type: ignore[assignment]
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        except BaseRewardError as error:
            print(f"basereward: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("basereward: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141


def _run(arguments: list[str]) -> int:
    # Before everything else, since a module named here may add commands.
    early = argparse.ArgumentParser(prog="basereward", add_help=False, allow_abbrev=False)
    _add_modules(early)
    named, rest = early.parse_known_args(arguments)
    plugins = manager(named.modules)

    parser = argparse.ArgumentParser(
        prog="basereward", description="Train, evaluate and use multimodal reward models.", allow_abbrev=False
    )
    _add_modules(parser)
    parser.add_argument("--version", action="version", version=f"basereward {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        if importlib.util.find_spec(f"basereward.cli.{command}") is None:  # TEMPORARY
            continue
        importlib.import_module(f"basereward.cli.{command}").add_parser(subparsers)
    plugins.emit("basereward_commands", subparsers=subparsers)
    args = parser.parse_args(rest)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    return int(args.run(args) or 0)


def _add_modules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        metavar="MODULE",
        dest="modules",
        action="append",
        default=[],
        help="load a module of yours as a plugin; may be repeated",
    )


def _shorten(show: object) -> object:
    """Return a `warnings.showwarning` that shows plugins' warnings without a line of our code."""

    def showwarning(message: Warning | str, category: type[Warning], *place: object) -> None:
        if issubclass(category, PluginWarning):
            print(f"basereward: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place)  # type: ignore[operator]

    return showwarning
