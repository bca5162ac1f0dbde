"""The settings of run files and components as tables: name, type, default, and what the docstring says."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from basereward.config.conversion import Component, type_name
from basereward.config.run import (
    DataConfig,
    LoraConfig,
    MixtureConfig,
    RunConfig,
    Source,
    Stage,
    TrainConfig,
)

TABLES: dict[str, type] = {
    "run": RunConfig,
    "data": DataConfig,
    "source": Source,
    "mixture": MixtureConfig,
    "train": TrainConfig,
    "lora": LoraConfig,
    "stage": Stage,
}
"""The tables of a run file, by short names."""

HEADERS = {
    "run": "the top level",
    "data": "`[data]`",
    "source": "`[[data.train]]`, beside `name` and the options of the data set",
    "mixture": "`[data.mixture]`",
    "train": "`[train]`",
    "lora": "`[train.lora]`",
    "stage": "`[[stages]]`",
}
"""Where each of them stands in a run file."""


REQUIRED = "(required)"
"""The default of a setting that has none."""

WIDTH = 80
"""Characters of a line of a terminal."""


class Setting(NamedTuple):
    """A setting as a reader sees it."""

    name: str
    type: str
    default: str
    description: str


def settings_of(table: str) -> list[Setting]:
    """Return the settings of a table of run files."""
    cls = TABLES[table]
    hints, texts = get_type_hints(cls), argument_texts(inspect.getdoc(cls) or "")
    settings = []
    for item in fields(cls):
        if issubclass(cls, Component) and item.name in ("name", "options"):
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        settings.append(
            Setting(item.name, type_name(hints[item.name]), _shown(default), texts.get(item.name, ""))
        )
    return settings


def argument_texts(docstring: str) -> dict[str, str]:
    """Return what a docstring's `Args:` says of each parameter."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def aligned(settings: Sequence[Setting]) -> str:
    """Return settings as lines of a terminal, each as `name: type = default` with its description below."""
    lines = []
    for name, kind, default, description in settings:
        value = f" = {default}" if default != REQUIRED else f", {REQUIRED.strip('()')}"
        lines += textwrap.wrap(f"{name}: {kind}{value}", WIDTH, subsequent_indent=" " * 8)
        lines += textwrap.wrap(description, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return "\n".join(lines) or "no options"


def page() -> str:
    """Return all tables of run files as Markdown."""
    return "\n".join(_section(table) for table in TABLES)


def _section(table: str) -> str:
    lines = [f"## {HEADERS[table]}", "", "| setting | type | default | |", "|---|---|---|---|"]
    for name, kind, default, description in settings_of(table):
        cells = [f"`{name}`", f"`{kind}`", "" if default == REQUIRED else f"`{default}`", description]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _shown(default: Any) -> str:
    if default is MISSING:
        return REQUIRED
    if isinstance(default, Component):
        return repr(default.name)
    return "{}" if is_dataclass(default) else repr(default)
