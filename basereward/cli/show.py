"""`basereward show`: one component, who provides it, and its options."""

from __future__ import annotations

import argparse
import inspect
import re

from basereward.cli.command import Command
from basereward.config.conversion import type_name
from basereward.hookspecs import KINDS
from basereward.plugins.options import Option, component_options
from basereward.plugins.plugin_manager import WITH_PATH, manager

COMMAND = Command(
    help="show a component and its options",
    description="Show what a component does, who provides it, and its options.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="a component's name, as `basereward plugins` lists it")


def run(args: argparse.Namespace) -> int:
    """Print the component's first line, its provider, its file, and its options."""
    plugins = manager()
    provided = plugins.find(args.kind, args.name)
    component = plugins.load(args.kind, args.name)
    text = inspect.getdoc(component) or ""
    print(f"{provided.kind} {provided.name}: {text.partition(chr(10))[0]}".rstrip(), end="\n\n")
    print(f"plugin  {provided.plugin} {provided.version}".rstrip())
    print(f"class   {provided.target}")
    print(f"file    {inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}\n")
    descriptions: dict[str, str] = {}
    for cls in reversed(component.__mro__):  # a subclass need not repeat what its base says of an option
        descriptions |= _descriptions(inspect.getdoc(cls) or "")
    print("\n".join(_table(_settings(args.kind, component), descriptions)))
    return 0


def _settings(kind: str, component: type) -> dict[str, Option]:
    """Return what a run file's table may hold: the options, and the path of kinds that read files."""
    first = next(iter(inspect.signature(component).parameters.values()), None)
    if kind not in WITH_PATH or first is None or first.kind is first.KEYWORD_ONLY:
        return component_options(component)
    return {"path": Option("path", str, first.default), **component_options(component)}


def _table(options: dict[str, Option], descriptions: dict[str, str]) -> list[str]:
    if not options:
        return ["no options"]
    rows = [("option", "type", "default", "")]
    for name, option in options.items():
        default = "(required)" if option.is_required else repr(option.default)
        rows.append((name, type_name(option.type), default, descriptions.get(name, "")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def _descriptions(docstring: str) -> dict[str, str]:
    """Return what a docstring's `Args:` says of each parameter."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
