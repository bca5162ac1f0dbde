"""Dataclasses as TOML: first to tables, then to text, which the standard library does not write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from basereward.config.conversion import NONE, Component


def dumps(value: Any) -> str:
    """Return a dataclass as TOML, defaults included."""
    import tomli_w  # reading a run file doesn't need it

    return tomli_w.dumps(_writable(to_table(value)))


def to_table(value: Any) -> Any:
    """Return a dataclass as tables, lists and scalars; a key that would be None by default is left out."""
    if is_dataclass(value):
        shown = [item.name for item in fields(value) if not getattr(value, item.name) is item.default is None]
        table = {name: to_table(getattr(value, name)) for name in shown}
        options = table.pop("options") if isinstance(value, Component) else {}
        return {**table, **options}
    if isinstance(value, Mapping):
        return {key: to_table(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_table(item) for item in value]
    return value


def _writable(value: Any) -> Any:
    """Return tables with what TOML lacks as text: `none` for None, paths and dates as strings."""
    if isinstance(value, Mapping):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if value is None:
        return NONE
    return value if isinstance(value, str | int | float) else str(value)
