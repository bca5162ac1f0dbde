"""A mutant is a component that breaks one promise, with the message of the check that catches it."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from basereward import hookimpl
from basereward.hookspecs import KINDS
from basereward.testing import Check, checks
from basereward.testing.subject import Options


@dataclass(frozen=True)
class Mutant:
    """A component that is wrong.

    Args:
        check: What has to catch it.
        component: Its class.
        message: What the check says, with # for each number.
        given: The options under which it is built.
    """

    check: Callable[..., None]
    component: type
    message: str
    given: Options | None = None

    @property
    def id(self) -> str:
        """The check and the mutant."""
        return f"{self.check.__module__.rpartition('.')[2]}-{self.check.__name__}-{self.component.__name__}"


def check_of(kind: str, mutant: Mutant) -> Check:
    """Return the check of the kit that has to catch a mutant, as the kit runs it."""
    module: Any = types.ModuleType(f"mutant_{mutant.component.__name__.lower()}")
    setattr(module, KINDS[kind], hookimpl(lambda: {"mutant": mutant.component}))
    options = {} if mutant.given is None else {f"{kind}/mutant": mutant.given}
    (found,) = [check for check in checks(module, options=options) if check.function is mutant.check]
    return found


def without_numbers(message: str) -> str:
    """Return a message with # for each number, and DIRECTORY for that of a component's files."""
    message = re.sub(r"/\S*basereward-conformance-\w+", "DIRECTORY", message)
    return re.sub(r"(?<![\w#])-?\d+(\.\d+)?(e[-+]?\d+)?\b|\bnan\b|\binf\b", "#", message)
