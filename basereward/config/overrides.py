"""Changes of a run file's tables: `KEY=VALUE` settings of a command line, and tables of changes."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from typing import Any

from basereward.errors import ConfigError


def set_value(table: dict[str, Any], override: str) -> tuple[str, ...]:
    """Set one `KEY=VALUE` in the table, and return its keys."""
    text, equals, value_text = override.partition("=")
    keys = _keys(text)
    if not (equals and keys):
        raise ConfigError(f"--set {override}: write KEY=VALUE, such as train.lr=1e-5")
    place: Any = table
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        if isinstance(place, list):
            if not key.isdecimal() or int(key) > len(place):
                where = ".".join(keys[:depth])
                raise ConfigError(
                    f"--set {override}: {where} is a list of {len(place)}; write {where}.0 for its first item"
                )
            key_or_index: Any = int(key)
            if key_or_index == len(place):
                place.append({})
        else:
            key_or_index = key
        if is_last:
            place[key_or_index] = parse_value(value_text)
            break
        # A list of tables that the file doesn't have starts empty; so does a table.
        below: Any = [] if keys[depth + 1].isdecimal() else {}
        nested = place[key_or_index] if isinstance(place, list) else place.setdefault(key_or_index, below)
        if isinstance(nested, str):  # `loss = "hinge"` is short for a table with that name
            nested = place[key_or_index] = {"name": nested}
        if not isinstance(nested, dict | list):
            raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is a value, not a table")
        place = nested
    return keys


def _keys(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, or none if it isn't one."""
    try:
        nested: Any = tomllib.loads(f"{text.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys = []
    while isinstance(nested, dict) and len(nested) == 1:
        [(key, nested)] = nested.items()
        keys.append(key)
    return () if nested else tuple(keys)


def parse_value(text: str) -> Any:
    """Return the value of `KEY=VALUE`: parsed as TOML, or the text itself if it is not TOML."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError as error:
        raise ConfigError(f"the value {text[:40]}... is nested too deeply") from error
    dates = datetime.date | datetime.time  # no option is one, but a directory may be called 2025-01-31
    return text if len(table) > 1 or isinstance(table["value"], dates) else table["value"]


def deep_merge(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with changes merged into it: nested tables are merged too, other values replaced.

    A change with a `name` is another component, and replaces the one that is there with all its options. Keys
    that are numbers change the items of a list, counted from 0.
    """
    merged = dict(table)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and "name" not in value:
            if isinstance(below, str):  # `loss = "hinge"` is short for a table with that name
                below = {"name": below}
            if isinstance(below, Mapping):
                value = deep_merge(below, value)
            elif isinstance(below, list) and all(number.isdecimal() for number in value):
                items = deep_merge({str(number): item for number, item in enumerate(below)}, value)
                value = list(items.values())
        merged[key] = value
    return merged
