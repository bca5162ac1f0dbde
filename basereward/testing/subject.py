"""The subject of a check: a component with the options that make it small; and the failure of a check."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from basereward.config.conversion import Component
from basereward.plugins.plugin_manager import PluginManager

Options = Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]
"""Options of a component, or a function that writes files into a directory of its own and returns them."""


TOLERANCE = 1e-5
"""The largest difference of rewards and losses in fp32 that are the same but for rounding."""


class Failed(AssertionError):
    """A component breaks a promise."""


def require(claim: object, message: str) -> None:
    """Raise `Failed` with the message unless the claim holds."""
    if not claim:
        raise Failed(message)


def require_alike(actual: Tensor, expected: Tensor, what: str, *, tolerance: float = 0.0) -> None:
    """Raise `Failed` unless both tensors have one shape and differ by at most the tolerance; NaN never does.

    Args:
        actual: The tensor that is checked.
        expected: The tensor that it must equal.
        what: The beginning of the message.
        tolerance: Largest difference of two elements; 0 for bit-equality.
    """
    require(
        actual.shape == expected.shape,
        f"{what}: the shape is {list(actual.shape)}, not {list(expected.shape)}",
    )
    if not actual.numel():
        return
    difference = float((actual.detach().double() - expected.detach().double()).abs().max())
    allowed = f"at most {tolerance:g} is allowed" if tolerance else "none is allowed"
    require(difference <= tolerance, f"{what}: they differ by {difference:.3g}; {allowed}")


def require_near(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise `Failed` unless both tensors have one shape and differ by at most `TOLERANCE`."""
    require_alike(actual, expected, what, tolerance=TOLERANCE)


def require_rewards(rewards: object, num: int, what: str) -> None:
    """Raise `Failed` unless rewards are a tensor [num] of finite numbers; `what` begins the first message."""
    require(
        isinstance(rewards, Tensor) and list(rewards.shape) == [num],
        f"{what} {shape_of(rewards)}, not [{num}]",
    )
    assert isinstance(rewards, Tensor)
    require(rewards.isfinite().all(), f"its rewards are {rewards.tolist()}, which are not finite")


def checks_of(module: str) -> tuple[Callable[[Any], None], ...]:
    """Return a module's checks: the public functions that it defines, in their order."""
    return tuple(
        member
        for name, member in vars(sys.modules[module]).items()
        if inspect.isfunction(member) and member.__module__ == module and not name.startswith("_")
    )


def shape_of(value: object) -> str:
    """Return a tensor's shape, or the name of another object's class, for a message."""
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def does_not_apply(reason: str) -> None:
    """Skip a check that does not apply to the component."""
    pytest.skip(reason)


@dataclass(frozen=True, eq=False)
class Subject:
    """A component to be tested.

    Args:
        plugins: Where it is looked up.
        kind: Its kind.
        name: Its name; `plugin/name` where another plugin has the same.
        given: The options under which it is built, or the function that returns them.
        head: The name of the head that goes with it, of a paradigm.
    """

    plugins: PluginManager
    kind: str
    name: str
    given: Options = dataclasses.field(default_factory=dict)
    head: str = "mlp"

    @property
    def cls(self) -> Any:
        """The component's class."""
        return self.plugins.load(self.kind, self.name)

    @functools.cached_property
    def directory(self) -> Path:
        """A directory of the component's own, removed when the process ends."""
        path = tempfile.mkdtemp(prefix="basereward-conformance-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return Path(path)

    @functools.cached_property
    def options(self) -> Mapping[str, Any]:
        """The options under which it is built."""
        return self.given(self.directory) if callable(self.given) else self.given

    def build(self, *wired: Any, seed: int = 0, **options: Any) -> Any:
        """Make the component, its weights drawn from the seed; `options` replace those given."""
        torch.manual_seed(seed)
        component = Component(self.name, {**self.options, **options})
        return self.plugins.build(self.kind, component, *wired)

    def fresh_directory(self, name: str) -> Path:
        """Return an empty directory below the component's own."""
        path = self.directory / f".{name}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path
