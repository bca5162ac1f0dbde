"""Weights by a model of text alone against their formula, and against the loss that reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import pytest
import tiny
import torch

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.losses import BradleyTerry, Targets
from basereward.protocols import Scorer
from basereward.scoring.pair_weights import PairWeights, pair_weights, weighted


class ByNumber(Scorer[list[float]]):
    """A proxy whose reward of a response is the number that it is, and that refuses images."""

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Yield each comparison with its rewards."""
        for comparison in comparisons:
            assert not comparison.images
            if "x" in comparison.responses:
                yield comparison, DataError("is no number", field="responses")
            else:
                yield comparison, [float(response) for response in comparison.responses]


def row(*responses: str, **settings: object) -> Comparison:
    ranks = settings.pop("ranks", list(range(len(responses))))
    return Comparison("q", responses, images=[tiny.image(28, 28)], ranks=ranks, **settings)  # type: ignore[arg-type]


ROWS = [
    row("2", "0"),  # margin 2: the text gives it away
    row("0", "1", weight=3.0),  # margin -1
    DataError("is bad"),
    row("3", "1", "1", ranks=[0, 1, 1]),  # margins 2 and 2, and a tie
    row("5", "4", ranks=[0, 0]),  # a tie alone
    row("1", "x"),
    Comparison("q", ["1", "2"]),
]


def found(floor: float = 0.1) -> PairWeights:
    return pair_weights(ByNumber(), ROWS, floor=floor)


def test_a_pair_counts_as_much_as_the_proxy_takes_its_wrong_order_for_likely() -> None:
    result = found()
    t = result.temperature
    # Margins 2, -1, 2, 2: the slope of the log-likelihood, 6 s(-2/t) - s(1/t), is 0.
    assert 6 / (1 + math.exp(2 / t)) == pytest.approx(1 / (1 + math.exp(-1 / t)), rel=1e-6)
    sure, wrong = (0.1 + 0.9 / (1 + math.exp(margin / t)) for margin in (2, -1))
    tie = 0.1 + 0.9 / 2
    mean = (sure + wrong + sure + tie) / 4
    weights = [each for each in result.weights if not isinstance(each, DataError)]
    assert weights == pytest.approx([sure / mean, 3 * wrong / mean, sure / mean, tie / mean])
    assert [str(each) for each in result.weights if isinstance(each, DataError)] == [
        "is bad",
        "responses: is no number",
        "ranks: has no ranks or ratings, so no pair to weigh",
    ]
    assert (result.num_pairs, result.accuracy) == (4, 3 / 4)
    total = 3 * sure + wrong
    assert result.num_effective == pytest.approx(total**2 / (3 * sure**2 + wrong**2))


def test_a_floor_of_one_weighs_nothing_down() -> None:
    weights = [each for each in found(1.0).weights if not isinstance(each, DataError)]
    assert weights == [1.0, 3.0, 1.0, 1.0]
    with pytest.raises(ConfigError, match=r"^the floor is a share from 0 to 1, not 2$"):
        found(2.0)


def test_the_loss_is_the_mean_by_these_weights() -> None:
    rows = [each for each in weighted(ROWS, found().weights) if isinstance(each, Comparison)]
    first, second = rows[:2]
    rewards = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    loss = BradleyTerry()(rewards, Targets.of([first, second])).loss
    costs = torch.nn.functional.softplus(-(rewards[::2] - rewards[1::2]))
    weight = torch.tensor([first.weight, second.weight], dtype=torch.float64)
    expected = (costs * weight).sum() / weight.sum()
    # Weights are kept in fp32: a relative error of 2**-24 each.
    torch.testing.assert_close(loss, expected, rtol=4 * 2**-24, atol=0.0)
    gradients = torch.autograd.grad(loss, rewards)[0], torch.autograd.grad(expected, rewards)[0]
    torch.testing.assert_close(*gradients, rtol=8 * 2**-24, atol=0.0)


def test_rows_that_no_proxy_can_score_are_an_error() -> None:
    with pytest.raises(DataError, match=r"^none of 1 rows can be weighed, the first: .*is no number$"):
        pair_weights(ByNumber(), [row("1", "x")])


def test_rows_of_ties_alone_weigh_the_same_and_say_nothing_of_the_proxy() -> None:
    result = pair_weights(ByNumber(), [row("5", "4", ranks=[0, 0]), row("1", "2", ranks=[0, 0])])
    assert (result.weights, result.num_pairs, result.accuracy) == ([1.0, 1.0], 0, None)
