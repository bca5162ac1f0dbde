"""Options: what a constructor's signature allows a run file to say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from basereward.config.conversion import type_name
from basereward.errors import ConfigError, PluginError
from basereward.plugins.options import Option, component_options, resolved_options

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A group of options."""

    size: int
    stretch: bool = False


class Example:
    """Has an option of every type."""

    def __init__(
        self,
        dim: Fraction,
        *,
        model: str,
        rate: float = 1e-3,
        num: int = 2,
        flag: bool = False,
        mode: Literal["none", "tanh"] = "tanh",
        width: int | None = None,
        either: int | str = 1,
        sizes: tuple[int, ...] = (),
        pair: tuple[float, float] = (0.0, 1.0),
        words: list[str] | None = None,
        parts: dict[str, float] | None = None,
        place: Path | None = None,
        crop: Crop | None = None,
        anything: Any = None,
    ) -> None:
        pass


class Heir(Example):
    """Inherits its constructor."""


def test_options_are_the_keyword_only_parameters() -> None:
    options = component_options(Example)
    assert list(options)[:3] == ["model", "rate", "num"]
    assert options["rate"] == Option("rate", float, 1e-3)
    assert [name for name, option in options.items() if option.is_required] == ["model"]
    assert component_options(Heir) == options


def test_class_without_constructor_has_no_options() -> None:
    class Plain:
        pass

    assert resolved_options(Plain, {}) == {}
    with pytest.raises(ConfigError, match=r"^loss 'plain' has no option 'a'; it has no options$"):
        resolved_options(Plain, {"a": 1}, "loss 'plain'")


def test_resolved_options_are_all_options() -> None:
    resolved = resolved_options(Example, {"model": "m", "num": 3})
    assert list(resolved) == list(component_options(Example))
    assert (resolved["model"], resolved["num"], resolved["pair"]) == ("m", 3, (0.0, 1.0))


GOOD = {
    "int for float": ("rate", 1, 1.0),
    "list for tuple": ("sizes", [1, 2], (1, 2)),
    "tuple for tuple": ("sizes", (1, 2), (1, 2)),
    "list for pair": ("pair", [1, 2], (1.0, 2.0)),
    "None": ("width", None, None),
    "the word for None": ("width", "none", None),
    "a literal that is the word for None": ("mode", "none", "none"),
    "second of two types": ("either", "x", "x"),
    "list": ("words", ["a"], ["a"]),
    "table": ("parts", {"head": 1}, {"head": 1.0}),
    "path": ("place", "a/b", Path("a/b")),
    "group": ("crop", {"size": 3}, Crop(size=3)),
    "group as it is": ("crop", Crop(size=3), Crop(size=3)),
    "anything": ("anything", [1, {"a": "none"}], [1, {"a": "none"}]),
}


@pytest.mark.parametrize(("name", "value", "expected"), GOOD.values(), ids=GOOD)
def test_value_becomes_what_the_annotation_says(name: str, value: object, expected: object) -> None:
    found = resolved_options(Example, {"model": "m", name: value})[name]
    assert (found, type(found)) == (expected, type(expected))


BAD = {
    "rate": ("fast", "x 'e': rate must be a number, not the string 'fast'"),
    "num": (1.0, "x 'e': num must be an integer, not the number 1.0"),
    "flag": (1, "x 'e': flag must be true or false, not the integer 1"),
    "mode": ("tan", "x 'e': mode must be one of 'none', 'tanh', not the string 'tan'; did you mean 'tanh'?"),
    "width": (True, "x 'e': width must be an integer or \"none\", not true"),
    "either": ([], "x 'e': either must be an integer or a string, not a list"),
    "sizes": ([1, "2"], "x 'e': sizes.1 must be an integer, not the string '2'"),
    "pair": ([1], "x 'e': pair must be a list of 2 values (tuple[float, float]), not of 1"),
    "words": ("a", "x 'e': words must be a list (list[str]) or \"none\", not the string 'a'"),
    "parts": ({"head": "x"}, "x 'e': parts.head must be a number, not the string 'x'"),
    "place": (3, "x 'e': place must be a path or \"none\", not the integer 3"),
    "crop": (
        {"size": 3, "strech": 1},
        "x 'e': [crop] has no key 'strech'; did you mean 'stretch'? keys: size, stretch",
    ),
    "model": ({}, "x 'e': model must be a string, not a table"),
}


@pytest.mark.parametrize(("name", "value", "message"), [(name, *rest) for name, rest in BAD.items()])
def test_value_of_a_wrong_type_is_answered_with_what_is_allowed(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolved_options(Example, {"model": "m", name: value}, "x 'e'")
    assert str(error.value) == message


def test_unknown_and_missing_options_are_answered_with_the_known_ones() -> None:
    class Hinge:
        def __init__(self, *, margin: float, scale: float = 1.0) -> None:
            pass

    messages = {
        "magrin": "loss 'hinge' has no option 'magrin'; did you mean 'margin'? options: margin, scale",
        "xyz": "loss 'hinge' has no option 'xyz'; options: margin, scale",
        "scale": "loss 'hinge' needs option 'margin'; options: margin, scale",
    }
    for name, message in messages.items():
        with pytest.raises(ConfigError) as error:
            resolved_options(Hinge, {name: 1.0}, "loss 'hinge'")
        assert str(error.value) == message


def test_options_that_a_run_file_cannot_hold_are_the_components_fault() -> None:
    class Bare:
        def __init__(self, *, margin=1.0) -> None:  # type: ignore[no-untyped-def]
            pass

    class Hidden:
        def __init__(self, *, ratio: Fraction | None = None) -> None:
            pass

    class Odd:
        def __init__(self, *, codec: bytes = b"") -> None:
            pass

    place = f"{__name__}:test_options_that_a_run_file_cannot_hold_are_the_components_fault.<locals>"
    messages = {
        Bare: f"{place}.Bare: option 'margin' has no type annotation",
        Hidden: f"{place}.Hidden: the annotation of an option can't be resolved: "
        "name 'Fraction' is not defined; import what it names outside of TYPE_CHECKING",
        Odd: f"{place}.Odd: option 'codec' is bytes, which no run file can hold",
    }
    for component, message in messages.items():
        with pytest.raises(PluginError) as error:
            component_options(component)
        assert str(error.value) == message


def test_type_names_read_as_written() -> None:
    types = [option.type for option in component_options(Example).values()]
    assert [type_name(annotation) for annotation in types] == [
        "str",
        "float",
        "int",
        "bool",
        "'none' | 'tanh'",
        "int | None",
        "int | str",
        "tuple[int, ...]",
        "tuple[float, float]",
        "list[str] | None",
        "dict[str, float] | None",
        "Path | None",
        "Crop | None",
        "Any",
    ]
