"""Options: read from the signatures of components, and checked against their annotations."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from basereward.errors import ConfigError, PluginError

REQUIRED: Any = inspect.Parameter.empty
"""Stands as the default of an option that has none."""

NONE = "none"
"""How a run file, whose format has no null, writes None where an option allows it."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component as a run file names it; what the name stands for is looked up when it is built."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only parameter of a component's constructor."""

    name: str
    type: Any
    default: Any

    @property
    def is_required(self) -> bool:
        """Whether the option has no default."""
        return self.default is REQUIRED


class Mismatch(ConfigError):
    """A value that its annotation doesn't allow; whoever knows the place in a file says it.

    Args:
        path: Keys that lead from the top to the value.
        reason: What is wrong, and what is allowed; it goes on from the subject.
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


def component_options(component: type) -> dict[str, Option]:
    """Return a component's options, which are the keyword-only parameters of its constructor.

    Raises:
        PluginError: When one has no annotation, or one that can't be resolved or a run file can't hold.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(component).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for parameter in parameters:
        if parameter.annotation is REQUIRED:
            raise PluginError(f"{_place(component)}: option {parameter.name!r} has no type annotation")
    # Only options are resolved: wired parameters may be annotated with names that only type checkers import.
    shell = types.SimpleNamespace(__annotations__={item.name: item.annotation for item in parameters})
    constructor = inspect.unwrap(component.__init__)  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(shell, globalns=getattr(constructor, "__globals__", {}))
    except Exception as error:
        raise PluginError(
            f"{_place(component)}: the annotation of an option can't be resolved: {error}; "
            "import what it names outside of TYPE_CHECKING"
        ) from error
    for name, annotation in hints.items():
        if not _is_supported(annotation):
            raise PluginError(
                f"{_place(component)}: option {name!r} is {type_name(annotation)}, which no run file can hold"
            )
    return {item.name: Option(item.name, hints[item.name], item.default) for item in parameters}


def resolved_options(component: type, options: Mapping[str, Any], subject: str = "") -> dict[str, Any]:
    """Return every option of a component: checked where given, its default where not.

    Args:
        component: The class whose constructor says what is allowed.
        options: What the user has set.
        subject: What messages call the component; its module and class if empty.

    Raises:
        ConfigError: When an option is unknown, is missing, or has a value of a wrong type.
    """
    known = component_options(component)
    subject = subject or _place(component)
    listing = f"options: {', '.join(known)}" if known else "it has no options"
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or ";"
            raise ConfigError(f"{subject} has no option {name!r}{hint} {listing}")
    resolved = {}
    for name, option in known.items():
        if name in options:
            try:
                resolved[name] = checked(options[name], option.type, (name,))
            except Mismatch as error:
                raise ConfigError(f"{subject}: {error}") from error
        elif option.is_required:
            raise ConfigError(f"{subject} needs option {name!r}; {listing}")
        else:
            resolved[name] = option.default
    return resolved


def checked(value: Any, annotation: Any, path: tuple[str, ...] = ()) -> Any:
    """Return a value of a run file as its annotation has it: a list as a tuple, a table as a dataclass.

    Raises:
        Mismatch: When the annotation doesn't allow the value.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object):
        return value
    if origin in (Union, types.UnionType):
        return _checked_union(value, annotation, path)
    if origin is Literal:
        # By type as well as by value, since 1 == True == 1.0.
        if not any(type(value) is type(word) and value == word for word in arguments):
            hint = did_you_mean(value, map(str, arguments)) if isinstance(value, str) else ""
            raise Mismatch(path, f"must be {allowed(annotation)}, not {_shown(value)}{hint}")
        return value
    if isinstance(value, Mapping):
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            return from_table(annotation, value, path)
        if origin in (dict, Mapping):
            return {key: checked(item, arguments[1], (*path, str(key))) for key, item in value.items()}
    if _is_component(annotation) and isinstance(value, str):
        return annotation(value)
    if isinstance(value, list | tuple) and origin in (tuple, list, Sequence):
        return _checked_list(value, annotation, path)
    if annotation is float and type(value) is int:
        return float(value)
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if annotation is types.NoneType and value in (None, NONE):
        return None
    is_bool_as_int = isinstance(value, bool) and annotation is not bool
    if isinstance(annotation, type) and isinstance(value, annotation) and not is_bool_as_int:
        return value
    raise Mismatch(path, f"must be {allowed(annotation)}, not {_shown(value)}")


def from_table(cls: Any, table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    """Return the dataclass that a table describes; a `Component` with a default needs no name.

    Of a component's table, the keys that are no fields of the dataclass are the component's options.

    Raises:
        Mismatch: When a key is unknown or missing, or a value has a wrong type.
    """
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    if _is_component(cls):
        if "name" not in table:
            raise Mismatch(path, "needs 'name'")
        own = {key: value for key, value in table.items() if key in fields and key != "options"}
        options = {key: value for key, value in table.items() if key not in own}
        table = {**own, "options": options}
    subject = f"[{'.'.join(path)}]" if path else "the top level"
    for key in table:
        if key not in fields:
            hint = did_you_mean(key, fields) or ";"
            raise Mismatch((*path, key), f"has no key {key!r}{hint} keys: {', '.join(fields)}", subject)
    missing = [
        repr(item.name)
        for item in fields.values()
        if item.name not in table
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise Mismatch(path, f"needs {' and '.join(missing)}", subject)
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        default = fields[key].default
        if isinstance(default, Component) and isinstance(value, Mapping):
            value = {"name": default.name, **value}
        values[key] = checked(value, hints[key], (*path, key))
    try:
        return cls(**values)
    except Mismatch as error:  # a range that the dataclass checks itself
        raise Mismatch((*path, *error.path), error.reason) from None


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


def _checked_union(value: Any, annotation: Any, path: tuple[str, ...]) -> Any:
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
            return checked(value, member, path)
        except Mismatch as error:
            failures.append(error)
    inner = [error for error in failures if error.path != path]
    if inner:  # the value has a member's shape; what is wrong lies within it
        raise inner[0]
    raise Mismatch(path, f"must be {allowed(annotation)}, not {_shown(value)}")


def _checked_list(value: Sequence[Any], annotation: Any, path: tuple[str, ...]) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments[-1] is not ...:
        if len(value) != len(arguments):
            raise Mismatch(path, f"must be {allowed(annotation)}, not of {len(value)}")
        kinds = list(arguments)
    else:
        kinds = [arguments[0]] * len(value)
    items = [
        checked(item, kind, (*path, str(index)))
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    ]
    return items if origin is list else tuple(items)


def _is_component(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Component)


def _is_supported(annotation: Any) -> bool:
    if annotation in (Any, object, ...):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, tuple, list, Sequence, dict, Mapping):
        return all(map(_is_supported, arguments))
    return annotation in (int, float, str, bool, Path, types.NoneType) or dataclasses.is_dataclass(annotation)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    words = {str: "the string ", int: "the integer ", float: "the number "}
    return f"{words.get(type(value), '')}{value!r}"


def _place(component: type) -> str:
    return f"{component.__module__}:{component.__qualname__}"
