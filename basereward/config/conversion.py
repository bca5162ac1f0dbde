"""Conversion of a run file's values to the types that annotations and dataclasses ask for."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from basereward.config.other_names import OTHER_NAMES
from basereward.errors import ConfigError

NONE = "none"
"""The word for None in a run file, as TOML has no null."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component's name and options in a run file; its class is looked up when it is built."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


ComponentLike: TypeAlias = "Component | str | Mapping[str, Any]"
"""A component, its name, or a table of its `name` and its options."""


class ValidationError(ConfigError):
    """A value that its annotation doesn't allow; the caller adds the file's name.

    Args:
        path: Keys that lead from the top to the value.
        reason: The mistake and the allowed values, as the end of a sentence that begins with the subject.
        subject: What the message is about; the path if empty.
    """

    def __init__(self, path: tuple[str, ...], reason: str, subject: str = "") -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{subject or '.'.join(path)} {reason}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest of `words`, or nothing."""
    import difflib  # costs 3 ms, and only a mistake needs it

    nearest = difflib.get_close_matches(word, sorted(words), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def convert(value: Any, annotation: Any, path: tuple[str, ...] = ()) -> Any:
    """Return a value of a run file in the type of its annotation: a list as a tuple, a table as a dataclass.

    Raises:
        ValidationError: When the annotation doesn't allow the value.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object):
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, annotation, path)
    if origin is Literal:
        # By type as well as by value, since 1 == True == 1.0.
        if not any(type(value) is type(word) and value == word for word in arguments):
            hint = did_you_mean(value, map(str, arguments)) if isinstance(value, str) else ""
            raise ValidationError(path, f"must be {allowed(annotation)}, not {_shown(value)}{hint}")
        return value
    if isinstance(value, Mapping):
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            return from_table(annotation, value, path)
        if origin in (dict, Mapping):
            return {key: convert(item, arguments[1], (*path, str(key))) for key, item in value.items()}
    if _is_component(annotation) and isinstance(value, str):
        return annotation(value)
    if isinstance(value, list | tuple) and origin in (tuple, list, Sequence):
        return _convert_list(value, annotation, path)
    if annotation is float and type(value) is int:
        return float(value)
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if annotation is types.NoneType and value in (None, NONE):
        return None
    is_bool_as_int = isinstance(value, bool) and annotation is not bool
    if isinstance(annotation, type) and isinstance(value, annotation) and not is_bool_as_int:
        return value
    raise ValidationError(path, f"must be {allowed(annotation)}, not {_shown(value)}")


def from_table(cls: Any, table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    """Return the dataclass that a table describes; a `Component` with a default needs no name.

    Of a component's table, the keys that are no fields of the dataclass are the component's options.

    Raises:
        ValidationError: When a key is unknown or missing, or a value has a wrong type.
    """
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    if _is_component(cls):
        if "name" not in table:
            raise ValidationError(path, "needs 'name'")
        settings = {key: value for key, value in table.items() if key in fields and key != "options"}
        options = {key: value for key, value in table.items() if key not in settings}
        table = {**settings, "options": options}
    subject = f"[{'.'.join(path)}]" if path else "the top level"
    for key in table:
        if key not in fields:
            answer = f"; write {OTHER_NAMES[key]};" if key in OTHER_NAMES else ""
            hint = answer or did_you_mean(key, fields) or ";"
            raise ValidationError(
                (*path, key), f"has no key {key!r}{hint} keys: {', '.join(fields)}", subject
            )
    missing = [
        repr(item.name)
        for item in fields.values()
        if item.name not in table
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValidationError(path, f"needs {' and '.join(missing)}", subject)
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        default = fields[key].default
        if isinstance(default, Component) and isinstance(value, Mapping):
            value = {"name": default.name, **value}
        values[key] = convert(value, hints[key], (*path, key))
    try:
        return cls(**values)
    except ValidationError as error:  # a range that the dataclass checks itself
        raise ValidationError((*path, *error.path), error.reason) from None


def component_of(value: ComponentLike, subject: str, options: Mapping[str, Any] | None = None) -> Component:
    """Return a component that Python code gives as such, by its name, or as a table.

    Args:
        value: The component.
        subject: Its kind, for the message.
        options: Further options, which go before those of the value.

    Raises:
        ValidationError: When it is neither, or a table without `name`.
    """
    component: Component = value if isinstance(value, Component) else convert(value, Component, (subject,))
    return Component(component.name, {**component.options, **options}) if options else component


def type_name(annotation: Any) -> str:
    """Return an annotation as the user would write it: `int | None`, `'tanh' | 'silu'`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if annotation is types.NoneType:
        return "None"
    if origin is not None and arguments:
        items = ", ".join("..." if item is ... else type_name(item) for item in arguments)
        return f"{origin.__name__}[{items}]"
    return getattr(annotation, "__name__", str(annotation))


def allowed(annotation: Any) -> str:
    """Return what an annotation allows, in a user's words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(allowed, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}" if len(arguments) > 1 else repr(arguments[0])
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)} values ({type_name(annotation)})"
    if origin in (tuple, list, Sequence):
        return f"a list ({type_name(annotation)})"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(annotation):
        return "a name or a table" if _is_component(annotation) else "a table"
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
    words |= {types.NoneType: f'"{NONE}"'}
    return words.get(annotation) or type_name(annotation)


def is_supported(annotation: Any) -> bool:
    """Tell whether a run file can hold values of an annotation."""
    if annotation in (Any, object, ...):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, tuple, list, Sequence, dict, Mapping):
        return all(map(is_supported, arguments))
    return annotation in (int, float, str, bool, Path, types.NoneType) or dataclasses.is_dataclass(annotation)


def _convert_union(value: Any, annotation: Any, path: tuple[str, ...]) -> Any:
    members = get_args(annotation)
    if types.NoneType in members and value is None:
        return None
    # Before the other members, or `str | None` could never be None; a Literal with the word means the word.
    has_word = any(NONE in get_args(member) for member in members)
    if value == NONE and types.NoneType in members and not has_word:
        return None
    failures = []
    for member in members:
        try:
            return convert(value, member, path)
        except ValidationError as error:
            failures.append(error)
    inner = [error for error in failures if error.path != path]
    if inner:  # the value has a member's shape; the mistake lies within it
        raise inner[0]
    raise ValidationError(path, f"must be {allowed(annotation)}, not {_shown(value)}")


def _convert_list(value: Sequence[Any], annotation: Any, path: tuple[str, ...]) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments[-1] is not ...:
        if len(value) != len(arguments):
            raise ValidationError(path, f"must be {allowed(annotation)}, not of {len(value)}")
        kinds = list(arguments)
    else:
        kinds = [arguments[0]] * len(value)
    items = [
        convert(item, kind, (*path, str(index)))
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    ]
    return items if origin is list else tuple(items)


def _is_component(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Component)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    words = {str: "the string ", int: "the integer ", float: "the number "}
    return f"{words.get(type(value), '')}{value!r}"
