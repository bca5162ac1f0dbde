"""What every step of a curation does: a comparison in; the same, another, or a reason to drop it out."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import ClassVar

from basereward.comparison import Comparison, Message
from basereward.errors import DataError


class Step(abc.ABC):
    """One step; its keyword-only options are what a run file sets.

    Attributes:
        name: What run files and reports call it.
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


def with_prompt(comparison: Comparison, prompt: Iterable[Message]) -> Comparison:
    """Return the comparison with other messages, images included."""
    return _rebuilt(comparison, prompt, range(len(comparison.responses)), comparison.responses)


def with_responses(comparison: Comparison, kept: Sequence[int]) -> Comparison:
    """Return the comparison with some of its responses, in the order of their numbers."""
    return _rebuilt(comparison, comparison.prompt, kept, comparison.responses)


def with_texts(comparison: Comparison, responses: Sequence[str]) -> Comparison:
    """Return the comparison with other texts for the same responses."""
    return _rebuilt(comparison, comparison.prompt, range(len(responses)), responses)


def _rebuilt(
    comparison: Comparison, prompt: Iterable[Message], kept: Sequence[int], responses: Sequence[str]
) -> Comparison:
    def of_kept(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [values[number] for number in kept]

    return Comparison(
        prompt,
        [responses[number] for number in kept],
        ranks=of_kept(comparison.ranks),
        ratings=of_kept(comparison.ratings),
        weight=comparison.weight,
        id=comparison.id,
        source=comparison.source,
        meta=comparison.meta,
        place=comparison.place,
    )


def best_and_worst(comparison: Comparison) -> tuple[int, int] | None:
    """Return the first of the best and the last of the worst responses, or None if none is better."""
    ranks = comparison.ranks
    if ranks is None or len(set(ranks)) < 2:
        return None
    return ranks.index(min(ranks)), len(ranks) - 1 - ranks[::-1].index(max(ranks))
