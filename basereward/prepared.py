"""A comparison as a paradigm prepares it on the CPU, with its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from basereward.comparison import Comparison
    from basereward.forest.forest import Tree

Content = TypeVar("Content", covariant=True)


class Size(NamedTuple):
    """The cost of a prepared comparison: its tokens, a shared prompt once, and the patches of its images."""

    tokens: int
    patches: int = 0


UNKNOWN = Size(0)


@dataclass(frozen=True)
class Prepared(Generic[Content]):
    """A comparison that is ready for the device.

    Args:
        comparison: The comparison.
        content: What the paradigm made of it: a paradigm's own, often an `Encoded`.
        size: Its cost, by which batches are cut; 0 tokens where that isn't known, which no limit cuts.
    """

    comparison: Comparison
    content: Content
    size: Size = UNKNOWN


@dataclass(frozen=True)
class Encoded:
    """A comparison in tokens; None where a cache holds its hidden states."""

    tree: Tree | None
