"""Weights of comparisons by a model of text alone: what the text gives away counts less in the loss.

After arXiv 2503.03122, which weighs each pair by how a proxy without images fails on it while both are
trained; here the proxy is trained before, and a pair's weight is the probability that it gives to the wrong
order, as arXiv 1909.03683 weighs examples by a model of their bias.

Shapes: K comparisons, P pairs of all comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.protocols import Scorer
from basereward.scoring.ordered import score_in_order
from basereward.stats.calibration import temperature_of


@dataclass(frozen=True)
class PairWeights:
    """Weights that a proxy gives to rows.

    Attributes:
        weights: [K] Each row's weight, its own weight included, or the reason why it has none.
        num_pairs: Pairs that are no ties.
        accuracy: Share of them that the proxy puts in order, equal rewards half; None without pairs.
        temperature: The number that the proxy's margins are divided by.
        num_effective: How many pairs of equal weight are as many: the square of the sum of pairs' weights
            over the sum of their squares.
    """

    weights: Sequence[float | DataError]
    num_pairs: int
    accuracy: float | None
    temperature: float
    num_effective: float


def pair_weights(
    proxy: Scorer[list[float]],
    rows: Iterable[Comparison | DataError],
    *,
    floor: float = 0.05,
    batch_size: int = 8,
    advance: Callable[[], object] = lambda: None,
) -> PairWeights:
    """Score rows without their images and videos, and return their weights.

    A pair of margin m counts floor + (1 - floor) s(-m / t): s is the logistic function, and t the temperature
    at which the proxy's probabilities fit the given order best. A row's weight is the mean of its pairs' that
    are no ties, over the mean of all rows', so that rows weigh 1 on average; times the weight that it had. A
    row of ties alone counts as one that the proxy can't tell, 1/2.

    The losses divide by the sum of a step's weights: only weights against each other matter.

    Args:
        proxy: A model of text alone, trained on other rows than these.
        rows: Comparisons, and errors in place of rows that could not be read.
        floor: What a pair counts that the proxy is certain of, from 0 to 1.
        batch_size: Comparisons a forward pass.
        advance: Called as each row is done.

    Raises:
        ConfigError: When the floor is out of its range.
        DataError: When no row can be weighed.
    """
    if not 0 <= floor <= 1:
        raise ConfigError(f"the floor is a share from 0 to 1, not {floor:g}")
    margins: list[list[float] | DataError] = []
    given: list[float] = []
    items = _without_media(rows)
    for item, result in score_in_order(proxy, items, batch_size=batch_size, advance=advance):
        if isinstance(result, DataError):
            margins.append(result)
        else:
            assert isinstance(item, Comparison)  # an error comes with itself as its result
            margins.append(
                [result[pair.chosen] - result[pair.rejected] for pair in item.pairs() if not pair.tie]
            )
            given.append(item.weight)
    scored = [each for each in margins if not isinstance(each, DataError)]
    if not scored:
        errors = [each for each in margins if isinstance(each, DataError)]
        raise DataError(f"none of {len(margins)} rows can be weighed{_first(errors)}")
    margin = np.array([value for each in scored for value in each])  # [P]
    temperature = temperature_of(margin) if len(margin) else 1.0
    of_pairs = weights_of(margin, temperature, floor)  # [P]
    ends = np.cumsum([len(each) for each in scored])
    undecided = weights_of(np.zeros(1), temperature, floor)
    means = np.array(
        [part.mean() if len(part) else undecided[0] for part in np.split(of_pairs, ends[:-1])]
    )  # [K], of rows that have one
    weights = iter(means / means.mean() * np.array(given))
    return PairWeights(
        [each if isinstance(each, DataError) else float(next(weights)) for each in margins],
        len(margin),
        float((np.sign(margin) + 1).mean() / 2) if len(margin) else None,
        temperature,
        float(of_pairs.sum() ** 2 / (of_pairs**2).sum()) if len(margin) else 0.0,
    )


def weights_of(
    margin: NDArray[np.float64],  # [P]
    temperature: float,
    floor: float,
) -> NDArray[np.float64]:  # [P]
    """Return what pairs count before they are brought to a mean of 1."""
    wrong = np.exp(-np.logaddexp(0.0, margin / temperature))
    return np.asarray(floor + (1 - floor) * wrong)


def weighted(
    rows: Iterable[Comparison | DataError], weights: Sequence[float | DataError]
) -> Iterator[Comparison | DataError]:
    """Yield the rows with their weights, or the error that left one without."""
    for row, weight in zip(rows, weights, strict=True):
        if isinstance(row, DataError):
            yield row
        elif isinstance(weight, DataError):
            yield weight
        else:
            yield row.replace(weight=weight)


def _without_media(rows: Iterable[Comparison | DataError]) -> Iterator[Comparison | DataError]:
    for row in rows:
        if isinstance(row, Comparison) and row.ranks is None:
            error = DataError("has no ranks or ratings, so no pair to weigh", field="ranks")
            yield row.place.locate(error)
        else:
            yield row.without_images() if isinstance(row, Comparison) else row


def _first(errors: Sequence[DataError]) -> str:
    return f", the first: {errors[0]}" if errors else ""
