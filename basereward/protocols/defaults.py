"""Defaults of contracts: properties that an attribute of the instance replaces."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

__all__ = ["NONE", "NO_FACTS", "Module", "default"]

if TYPE_CHECKING:
    from builtins import property as default

    from torch.nn import Module
else:
    Module = object  # listing plugins must not import torch

    class default:
        """A property that an attribute of the instance replaces."""

        def __init__(self, compute: Any) -> None:
            self.compute = compute

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else self.compute(instance)


NONE: Final[Mapping[str, float]] = MappingProxyType({})
"""No numbers."""

NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})
