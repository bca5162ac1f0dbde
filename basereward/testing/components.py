"""Checks of every kind of component: a docstring, options with types and defaults, and their wiring."""

from __future__ import annotations

import difflib
import dis
import inspect
import json

from basereward.config.conversion import Component, convert, type_name
from basereward.errors import ConfigError, PluginError
from basereward.plugins.options import component_options
from basereward.protocols import CONTRACTS
from basereward.testing.subject import Subject, require

WIRED = {
    "backbone": ((),),
    "head": (("dim",),),
    "loss": ((),),
    "ensembler": ((),),
    "paradigm": (("backbone", "head", "loss"),),
    "dataset": (("path",), ()),
    "benchmark": (("path",), ()),
    "writer": ((),),
}
"""The arguments that the framework gives by position; data that come from no file need no path."""


def has_a_docstring(subject: Subject) -> None:
    """`basereward show` has something to say of it."""
    docstring = subject.cls.__doc__ or ""
    require(docstring.strip(), f"class {subject.cls.__name__} has no docstring; say in one line what it does")


def is_wired_by_position(subject: Subject) -> None:
    """The constructor takes by position what the framework wires, and everything else by keyword."""
    parameters = list(inspect.signature(subject.cls).parameters.values())
    for parameter in parameters:
        require(
            parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
            f"the constructor takes *{parameter.name}, which hides its options; name each",
        )
    wired = tuple(item.name for item in parameters if item.kind is not item.KEYWORD_ONLY)
    forms = WIRED[subject.kind]
    wanted = " or ".join(f"({', '.join([*form, '*'])}, ...)" for form in forms)
    require(
        any(len(wired) == len(form) for form in forms),
        f"the constructor takes ({', '.join(wired)}) by position; a {subject.kind}'s is {wanted}",
    )


def has_typed_options(subject: Subject) -> None:
    """Each option has a type that a run file can hold, and a default of that type."""
    try:
        options = component_options(subject.cls)
    except PluginError as error:
        require(False, str(error))
    for name, option in options.items():
        if option.is_required:
            is_model = subject.kind in ("backbone", "writer") and name == "model"
            require(is_model, f"option {name!r} has no default")
            continue
        try:
            convert(option.default, option.type, (name,))
        except ConfigError:
            require(False, f"option {name!r} is {type_name(option.type)}; {option.default!r} is none")


def misspells_no_member(subject: Subject) -> None:
    """No attribute that it defines has nearly the name of an optional member that it lacks."""
    contract = CONTRACTS[subject.kind]
    bases = [base for base in subject.cls.__mro__ if not base.__module__.startswith("torch.")]
    defined = {name for base in bases if base not in (contract, object) for name in vars(base)}
    constructor = inspect.unwrap(subject.cls.__init__)
    if inspect.isfunction(constructor):
        stores = (item for item in dis.get_instructions(constructor) if item.opname == "STORE_ATTR")
        defined |= {item.argval for item in stores}
    members = {name: member for name, member in vars(contract).items() if not name.startswith("_")}
    missing = [
        name
        for name, member in members.items()
        if name not in defined or inspect.getattr_static(subject.cls, name) is member
    ]
    for name in sorted(defined - set(members)):
        for member in difflib.get_close_matches(name, missing, n=1, cutoff=0.88):
            require(False, f"it defines {name!r}, no member of a {subject.kind}; did you mean {member!r}?")


def keeps_its_options(subject: Subject) -> None:
    """Its options survive the JSON of a model directory."""
    options = subject.plugins.resolve(subject.kind, Component(subject.name, subject.options)).options
    try:
        read = json.loads(json.dumps(options))
    except TypeError as error:
        require(False, f"its options can't be written as JSON: {error}")
    again = subject.plugins.resolve(subject.kind, Component(subject.name, read)).options
    require(again == options, f"its options are {options}, but come back from JSON as {again}")


CHECKS = (has_a_docstring, is_wired_by_position, has_typed_options, misspells_no_member)
SAVED_CHECKS = (*CHECKS, keeps_its_options)
"""Of the kinds whose options a model directory holds."""
