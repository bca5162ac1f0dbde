"""Scoring a stream: in order, with memory flat, and with comparisons of like length in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.protocols import Scorer
from basereward.scoring.batching import estimated_size
from basereward.scoring.scorer import EnsembleRewards

Rewards: TypeAlias = "list[float]"
"""Those of an ensemble have `members`, each one's rewards by name, and `disagreement` too."""

CHUNK_BATCHES = 16
"""Batches that are put in order of length at once, and come out at once."""


def score_in_order(
    model: Scorer[Rewards],
    items: Iterable[Comparison | DataError],
    *,
    batch_size: int,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Comparison | DataError, Rewards | DataError]]:
    """Yield each comparison with its rewards or its error, and each error with itself, in their order.

    Args:
        model: Scores.
        items: Comparisons, and errors in place of rows that could not be read.
        batch_size: Comparisons a forward pass.
        advance: Called as each item is done, which is before its turn to be yielded has come.

    Raises:
        ConfigError: When `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is a number of comparisons >= 1, not {batch_size}")
    waiting = iter(items)
    size = max(batch_size, model.smallest_batch) * CHUNK_BATCHES
    while chunk := list(islice(waiting, size)):
        yield from zip(chunk, _score(model, chunk, batch_size, advance), strict=True)


def _score(
    model: Scorer[Rewards],
    chunk: Sequence[Comparison | DataError],
    batch_size: int,
    advance: Callable[[], object],
) -> list[Rewards | DataError]:
    results: dict[int, Rewards | DataError] = {}
    to_score: list[tuple[int, int, Comparison]] = []
    for number, item in enumerate(chunk):
        if isinstance(item, DataError):
            results[number] = item
            advance()
        else:
            to_score.append((estimated_size(item), number, item))
    # Like lengths together, since a batch is padded to its longest.
    to_score.sort(key=lambda entry: entry[:2])
    scored = model.score_stream([item for *_, item in to_score], batch_size=batch_size)
    for (_, number, item), (_, result) in zip(to_score, scored, strict=True):
        results[number] = placed(result, item) if isinstance(result, DataError) else result
        advance()
    return [results[number] for number in range(len(chunk))]


def members_of(rewards: Rewards) -> dict[str, Any]:
    """Return the members' rewards of an ensemble's rewards, for JSON; empty for a single model's."""
    if not isinstance(rewards, EnsembleRewards):
        return {}
    facts = {"members": rewards.members, "disagreement": rewards.disagreement}
    return {name: value for name, value in facts.items() if value}


def placed(error: DataError, comparison: Comparison) -> DataError:
    """Return the error with the comparison's file and line; with its id where it was read from no file."""
    if comparison.place.file is None:
        return error.at(file=comparison.id or None)
    return comparison.place.locate(error)
