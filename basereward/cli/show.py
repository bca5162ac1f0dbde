"""`basereward show`: a component, its provider and its options; or the settings of a run file's table."""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING

from basereward.cli.command import Command
from basereward.config.conversion import type_name
from basereward.errors import ConfigError
from basereward.hookspecs import KINDS
from basereward.plugins.options import Option, component_options
from basereward.plugins.plugin_manager import WITH_PATH, manager

if TYPE_CHECKING:
    from basereward.config.reference import Setting

TABLES = ("run", "data", "source", "mixture", "train", "lora", "stage")
"""The tables of run files, by the names in `basereward.config.reference`."""

RUN_FILE = "run-file"
"""All of them, as Markdown."""

COMMAND = Command(
    description="Show what a component does, who provides it, and its options; or the settings of a table of "
    f"run files: {', '.join(TABLES)}.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "kind",
        metavar="KIND",
        help=f"one of {', '.join(KINDS)}; or a table: {', '.join(TABLES)}; or {RUN_FILE}, all of them",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a component's name, as `basereward plugins` lists it"
    )


def run(args: argparse.Namespace) -> int:
    """Print the component's first line, its provider, its file, and its options."""
    from basereward.config.reference import aligned, argument_texts, page, settings_of
    from basereward.reporting.tables import print_notes

    if args.name is None and args.kind == RUN_FILE:
        print(page())
        return 0
    if args.name is None:
        if args.kind not in TABLES:
            raise ConfigError(
                f"show {args.kind} needs the name of a component, or one of the tables {', '.join(TABLES)}"
            )
        print(aligned(settings_of(args.kind)))
        return 0
    plugins = manager()
    provided = plugins.find(args.kind, args.name)
    component = plugins.load(args.kind, args.name)
    text = inspect.getdoc(component) or ""
    print_notes([f"{provided.kind} {provided.name}: {text.partition(chr(10))[0]}".rstrip(), ""])
    print(f"plugin  {provided.plugin} {provided.version}".rstrip())
    print(f"class   {provided.target}")
    print(f"file    {inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}")
    if args.kind == "dataset":
        from basereward.data.formats import signatures

        for number, fields in enumerate(signatures(component)):
            print(f"{'or' if number else 'fields':8}{', '.join(fields)}")
    print()
    texts: dict[str, str] = {}
    for cls in reversed(component.__mro__):  # a subclass need not repeat what its base says of an option
        texts |= argument_texts(inspect.getdoc(cls) or "")
    print(aligned(_settings(args.kind, component, texts)))
    return 0


def _settings(kind: str, component: type, texts: dict[str, str]) -> list[Setting]:
    """Return what a run file's table may hold: the options, and the path of kinds that read files."""
    from basereward.config.reference import REQUIRED, Setting

    first = next(iter(inspect.signature(component).parameters.values()), None)
    options = component_options(component)
    if kind in WITH_PATH and first is not None and first.kind is not first.KEYWORD_ONLY:
        options = {"path": Option("path", str, first.default), **options}
    return [
        Setting(
            name,
            type_name(option.type),
            REQUIRED if option.is_required else repr(option.default),
            texts.get(name, ""),
        )
        for name, option in options.items()
    ]
