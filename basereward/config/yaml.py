"""Run files in YAML, read as their like in TOML: a key twice is an error, and `1e-5` a number."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    # as SafeLoader's, with an error for a key that isn't read as it stands
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"  # the key <<, which is no key of the table
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for number, key in enumerate(keys):
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r}{node.start_mark} is no name")
            if key in keys[:number]:
                raise ValueError(f"the key {key!r}{node.start_mark} is there twice")
        table: dict[Any, Any] = super().construct_mapping(node, deep)
        return table


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def loads(text: str) -> dict[str, Any]:
    """Return the tables of a YAML text.

    Raises:
        ValueError: When it is not YAML, or no table.
    """
    try:
        table = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not isinstance(table, dict):
        raise ValueError("it must be a table of settings, such as `output: runs/first`")
    if _is_within_itself(table, frozenset(), set()):
        raise ValueError("an alias stands within what it is an alias of")
    return table


def _is_within_itself(value: Any, above: frozenset[int], done: set[int]) -> bool:
    """Tell whether a value holds itself; each is looked into once, however many aliases it has."""
    if id(value) in above:
        return True
    if id(value) in done or not isinstance(value, dict | list):
        return False
    above |= {id(value)}
    items = value.values() if isinstance(value, dict) else value
    is_within = any(_is_within_itself(item, above, done) for item in items)
    done.add(id(value))
    return is_within
