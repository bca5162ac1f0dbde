"""Run files, written: dataclasses to tables, and tables to TOML, which Python reads but doesn't write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from basereward.plugins.options import NONE, Component


def document(value: Any) -> str:
    """Return a dataclass as TOML, defaults included."""
    return "\n".join(_table(plain(value), ())).strip() + "\n"


def plain(value: Any) -> Any:
    """Return a dataclass as tables, lists and scalars; a key that would be None by default is left out."""
    if is_dataclass(value):
        shown = [item.name for item in fields(value) if not getattr(value, item.name) is item.default is None]
        table = {name: plain(getattr(value, name)) for name in shown}
        options = table.pop("options") if isinstance(value, Component) else {}
        return {**table, **options}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return the lines of a table: first what fits a line, then the tables below it."""
    lines, below = [], []
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            below += ["", f"[{name}]", *_table(value, (*path, key))]
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                below += ["", f"[[{name}]]", *_table(item, (*path, key))]
        else:
            lines.append(f"{_key(key)} = {_scalar(value)}")
    return lines + below


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _string(text: str) -> str:
    # JSON's strings are TOML's, but for the one control character that JSON lets through.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _scalar(value: Any) -> str:
    if value is None:
        return _string(NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_scalar(item)}" for key, item in value.items()) + "}"
    return _string(str(value))
