"""A step of a curation: takes a comparison, and returns it, a changed one, or a reason to drop it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from basereward.comparison import Comparison
from basereward.errors import DataError


class Step(abc.ABC):
    """One step; its keyword-only options are set in run files.

    Attributes:
        name: Its name in run files and reports.
        is_rowwise: Whether a row's fate depends on that row alone; only such steps go with streamed data.
        takes_plugins: Whether the constructor's first parameter is the plugin manager.
    """

    name: ClassVar[str]
    is_rowwise: ClassVar[bool] = True
    takes_plugins: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Return the comparison, or a changed one, or why it is dropped: "kind" or "kind: details"."""

    def reset(self) -> None:  # noqa: B027
        """Forget all rows, before a new pass over the data."""


def with_responses(comparison: Comparison, kept: Sequence[int]) -> Comparison:
    """Return the comparison with some of its responses, in the order of their numbers."""

    def of_kept(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [values[number] for number in kept]

    return comparison.replace(
        responses=[comparison.responses[number] for number in kept],
        ranks=of_kept(comparison.ranks),
        ratings=of_kept(comparison.ratings),
    )


def best_and_worst(comparison: Comparison) -> tuple[int, int] | None:
    """Return the first of the best and the last of the worst responses, or None if none is better."""
    ranks = comparison.ranks
    if ranks is None or len(set(ranks)) < 2:
        return None
    return ranks.index(min(ranks)), len(ranks) - 1 - ranks[::-1].index(max(ranks))
