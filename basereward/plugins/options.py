"""Options of components: read from their constructors, and checked against the annotations there."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from basereward.config.conversion import ValidationError, convert, did_you_mean, is_supported, type_name
from basereward.errors import ConfigError, PluginError

REQUIRED: Any = inspect.Parameter.empty
"""The default of an option that has none."""


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
        if not is_supported(annotation):
            raise PluginError(
                f"{_place(component)}: option {name!r} is {type_name(annotation)}, which no run file can hold"
            )
    return {item.name: Option(item.name, hints[item.name], item.default) for item in parameters}


def resolved_options(component: type, options: Mapping[str, Any], subject: str = "") -> dict[str, Any]:
    """Return every option of a component: checked where given, its default where not.

    Args:
        component: The class, whose constructor declares the options.
        options: The values that the user has set.
        subject: The component's name in messages; its module and class if empty.

    Raises:
        ConfigError: When an option is unknown, is missing, or has a value of a wrong type.
    """
    declared = component_options(component)
    subject = subject or _place(component)
    listing = f"options: {', '.join(declared)}" if declared else "it has no options"
    for name in options:
        if name not in declared:
            hint = did_you_mean(name, declared) or ";"
            raise ConfigError(f"{subject} has no option {name!r}{hint} {listing}")
    resolved = {}
    for name, option in declared.items():
        if name in options:
            try:
                resolved[name] = convert(options[name], option.type, (name,))
            except ValidationError as error:
                raise ConfigError(f"{subject}: {error}") from error
        elif option.is_required:
            raise ConfigError(f"{subject} needs option {name!r}; {listing}")
        else:
            resolved[name] = option.default
    return resolved


def _place(component: type) -> str:
    return f"{component.__module__}:{component.__qualname__}"
