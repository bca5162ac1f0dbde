"""Forests: batches in which each prompt is encoded once and its responses branch off it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports

if TYPE_CHECKING:
    from basereward.forest.forest import IGNORED as IGNORED
    from basereward.forest.forest import Forest as Forest
    from basereward.forest.forest import Span as Span
    from basereward.forest.forest import Tree as Tree
    from basereward.forest.forest import pack as pack

__getattr__, __dir__, __all__ = _exports.lazy(
    __name__, {"forest": ("IGNORED", "Forest", "Span", "Tree", "pack")}
)
