"""Select by rewards: the best of N responses, their order, and rows whose margin is large enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.protocols import Scorer
from basereward.scoring.ordered import score_in_order

Selection = Callable[[Comparison, Sequence[float]], Comparison]
"""Makes what is kept of a comparison and its rewards; raises `DataError` with the reason to leave it out."""


def best_of(num_best: int = 1) -> Selection:
    """Return what keeps the responses with the highest rewards, best first; the earlier of equal ones."""

    def select(comparison: Comparison, rewards: Sequence[float]) -> Comparison:
        return _in_order(comparison, rewards, _best_first(rewards)[:num_best])

    return select


def ranked(comparison: Comparison, rewards: Sequence[float]) -> Comparison:
    """Return the comparison with its responses best first, ranked by their rewards; equal ones are ties."""
    order = _best_first(rewards)
    ordered = _in_order(comparison, rewards, order)
    ranks = [sum(other > rewards[number] for other in rewards) for number in order]
    return ordered.replace(ranks=ranks)


def agreed(
    *, min_margin: float | None = 0.0, max_margin: float | None = None, min_reward: float | None = None
) -> Selection:
    """Return what keeps the comparisons whose ranks the model agrees with.

    A comparison's margin is the smallest difference of rewards over its pairs that are no ties.

    Args:
        min_margin: The margin that it must be above; None for any.
        max_margin: The margin that it may have at most: what is easier teaches little.
        min_reward: The reward that one of its best responses must have at least.
    """

    def select(comparison: Comparison, rewards: Sequence[float]) -> Comparison:
        margins = [
            rewards[pair.chosen] - rewards[pair.rejected] for pair in comparison.pairs() if not pair.tie
        ]
        if not margins:
            raise DataError("no response is ranked above another", field="ranks")
        margin = min(margins)
        if min_margin is not None and not margin > min_margin:
            raise DataError(f"its margin is {margin:+.4f}, not above {min_margin:g}")
        if max_margin is not None and margin > max_margin:
            raise DataError(f"its margin is {margin:+.4f}, above {max_margin:g}")
        ranks = comparison.ranks or ()
        best = max(reward for reward, rank in zip(rewards, ranks, strict=True) if rank == min(ranks))
        if min_reward is not None and best < min_reward:
            raise DataError(f"its best response has the reward {best:+.4f}, below {min_reward:g}")
        return comparison.with_meta(rewards=list(rewards))

    return select


def selected(
    model: Scorer[list[float]],
    items: Iterable[Comparison | DataError],
    selection: Selection,
    *,
    batch_size: int,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[Comparison | DataError]:
    """Yield what is kept of each comparison, or the error that says why nothing is, in their order.

    Errors among the items are in place of rows that could not be read.
    """
    for item, result in score_in_order(model, items, batch_size=batch_size, advance=advance):
        if isinstance(result, DataError):
            yield result
            continue
        assert isinstance(item, Comparison)  # an error comes with itself as its result
        try:
            yield selection(item, result)
        except DataError as error:
            yield item.place.locate(error)


def _best_first(rewards: Sequence[float]) -> list[int]:
    return sorted(range(len(rewards)), key=lambda number: -rewards[number])


def _in_order(comparison: Comparison, rewards: Sequence[float], order: Sequence[int]) -> Comparison:
    """Return the comparison with these of its responses, and with their rewards in its meta.

    The ranks that it had go into its meta, too: they are of all its responses.
    """
    meta = {**comparison.meta, "rewards": [rewards[number] for number in order]}
    if comparison.ranks is not None:
        meta["given_ranks"] = [comparison.ranks[number] for number in order]
    responses = [comparison.responses[number] for number in order]
    return comparison.replace(responses=responses, ranks=None, ratings=None, meta=meta)
