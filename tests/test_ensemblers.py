"""Ensemblers: several models' rewards as one, against values computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies
from rounding import TINY_REWARD
from torch import Tensor

from basereward import Comparison
from basereward.ensemblers import (
    AccuracyWeighted,
    ConfidenceWeighted,
    Linear,
    Mean,
    MeanMinusStd,
    Median,
    Min,
    RankMean,
    Routed,
    Stacked,
    ZMean,
    centred,
    logistic,
    scales,
)
from basereward.errors import ConfigError, DataError

ALL = (
    AccuracyWeighted,
    ConfidenceWeighted,
    Mean,
    MeanMinusStd,
    Median,
    Min,
    RankMean,
    Routed,
    Stacked,
    ZMean,
)


def ranked(*sizes: int, is_tied: bool = False) -> list[Comparison]:
    """Return comparisons of so many responses, the best first; or all alike."""
    return [
        Comparison("p", [f"r{at}" for at in range(size)], ranks=[0 if is_tied else at for at in range(size)])
        for size in sizes
    ]


def fitted(ensembler: Any, members: Tensor, comparisons: Sequence[Comparison]) -> Any:
    """Return an ensembler that has learned what it learns."""
    if ensembler.learns:
        ensembler.fit(members, comparisons)
    return ensembler


MEMBERS = torch.tensor([[1.0, -2.0], [2.0, 0.0], [6.0, 5.0]])


@pytest.mark.parametrize(
    ("ensembler", "expected"),
    [
        (Mean(), [3.0, 1.0]),  # (1 + 2 + 6) / 3, (-2 + 0 + 5) / 3
        (Median(), [2.0, 0.0]),
        (Min(), [1.0, -2.0]),
        # deviations -2, -1, 3 and -3, -1, 4: sqrt(14 / 3) and sqrt(26 / 3), half of each subtracted
        (MeanMinusStd(coefficient=0.5), [3 - math.sqrt(14 / 3) / 2, 1 - math.sqrt(26 / 3) / 2]),
        (MeanMinusStd(coefficient=0.0), [3.0, 1.0]),
        (RankMean(), [1.0, 0.0]),  # each member gives the first response more
    ],
)
def test_three_members_are_joined_as_computed_by_hand(ensembler: Any, expected: list[float]) -> None:
    assert ensembler(MEMBERS, ranked(2)).tolist() == pytest.approx(expected, abs=1e-6)


def test_median_of_two_lies_between_them() -> None:
    assert Median()(MEMBERS[:2], ranked(2)).tolist() == [1.5, -1.0]  # (1 + 2) / 2, (-2 + 0) / 2


def test_rank_mean_is_the_mean_share_of_the_others_that_are_lower() -> None:
    members = torch.tensor([[5.0, 1.0, 3.0, 900.0, 1.0], [0.2, 0.2, 0.1, -0.1, -0.2]])
    # Of three: member 1 has shares 1, 0, 1/2; member 2, whose first two are equal, 3/4, 3/4, 0.
    # Of two: 1, 0 and 1, 0, whatever the size of the rewards.
    assert RankMean()(members, ranked(3, 2)).tolist() == [0.875, 0.375, 0.25, 1.0, 0.0]


def test_a_response_alone_has_no_rank() -> None:
    rewards = RankMean()(torch.ones(2, 3), ranked(1, 2))
    assert rewards[0].isnan()
    assert rewards[1:].tolist() == [0.5, 0.5]


def test_accuracy_weights_are_shares_of_pairs_in_order() -> None:
    # Of three pairs member 1 has all right, member 2 one right, one equal: 1 and 1.5 / 3, so 2/3 and 1/3.
    members = torch.tensor([[2.0, 0.0, 2.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    ensembler = fitted(AccuracyWeighted(), members, ranked(2, 2, 2))
    assert ensembler.state() == {"weights": pytest.approx([2 / 3, 1 / 3]), "offset": 0.0}
    # 2/3 * 3 + 1/3 * 6, 2/3 * 0 + 1/3 * 3
    assert ensembler(torch.tensor([[3.0, 0.0], [6.0, 3.0]]), ranked(2)).tolist() == [4.0, 1.0]


def test_confidence_weights_are_mean_margins() -> None:
    # Margins 3 and 1, mean 2; 0.5 and 0.5, mean 0.5; -1 and 0, mean -0.5, which gets no weight: 0.8, 0.2, 0.
    members = torch.tensor([[3.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 4.0, 4.0]])
    ensembler = fitted(ConfidenceWeighted(), members, ranked(2, 2))
    assert ensembler.state()["weights"] == pytest.approx([0.8, 0.2, 0.0])
    # 0.8 * 1 + 0.2 * 2 + 0 * 9
    assert ensembler(torch.tensor([[1.0], [2.0], [9.0]]), ranked(1)).tolist() == pytest.approx([1.2])


def test_z_mean_brings_members_to_one_scale_and_mean() -> None:
    # Within its two pairs member 1 deviates by 1, 1, 2, 2: sqrt((2 * 1 + 2 * 4) / (4 - 2)) = sqrt(5); the
    # other by a hundred times that. Means 2 and 200. Weights mean(1, 100) / (1, 100) / 2 = 25.25 and 0.2525.
    members = torch.tensor([[2.0, 0.0, 5.0, 1.0], [200.0, 0.0, 500.0, 100.0]])
    assert scales(members, ranked(2, 2)).tolist() == pytest.approx([math.sqrt(5), 100 * math.sqrt(5)])
    ensembler = fitted(ZMean(), members, ranked(2, 2))
    # Offset (2 + 200) / 2 - (25.25 * 2 + 0.2525 * 200) = 101 - 101 = 0
    assert ensembler.state() == {"weights": pytest.approx([25.25, 0.2525]), "offset": pytest.approx(0.0)}
    # Opposite margins of one standard deviation: neither is preferred.
    first, second = ensembler(torch.tensor([[1.0, 0.0], [0.0, 100.0]]), ranked(2)).tolist()
    assert first == pytest.approx(second)


def test_z_mean_refuses_a_member_that_says_nothing() -> None:
    members = torch.tensor([[2.0, 0.0], [3.0, 3.0]])
    with pytest.raises(
        DataError,
        match="^member 1, counted from 0, gives all responses of a comparison the same reward; it has no "
        "scale$",
    ):
        ZMean().fit(members, ranked(2))


def test_logistic_weights_are_where_the_gradient_is_zero() -> None:
    # One member, margin 1 of each of two pairs: 2 * sigmoid(-w) = w, whose root is 0.8745...
    [weight] = logistic(torch.ones(2, 1, dtype=torch.float64), 1.0).tolist()
    assert 2 / (1 + math.exp(weight)) == pytest.approx(weight, abs=1e-12)


def test_stacked_is_in_log_odds_whatever_the_members_scales() -> None:
    members = torch.tensor([[1.0, 0.0, 2.0, 0.0, 1.0, 2.0], [0.0, 1.0, 3.0, 0.0, 4.0, 0.0]])
    rows = ranked(2, 2, 2)
    one = fitted(Stacked(), members, rows)(members, rows)
    other = members * torch.tensor([[1000.0], [0.01]])
    assert torch.allclose(one, fitted(Stacked(), other, rows)(other, rows), atol=1e-5)
    # Margins 1, 2, -1 and -1, 3, 4 over the roots of their mean squares, 2 and 26 / 3.
    margin = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 3.0, 4.0]], dtype=torch.float64).T
    weights = logistic(margin / torch.tensor([2**0.5, (26 / 3) ** 0.5]), 1.0)
    expected = weights @ torch.tensor([1 / 2**0.5, -1 / (26 / 3) ** 0.5], dtype=torch.float64)
    assert float(one[0] - one[1]) == pytest.approx(float(expected), abs=TINY_REWARD)


def test_routed_asks_by_images() -> None:
    reads = [True, False, True]
    text, seen = ranked(2)[0], Comparison("p", ["a", "b"], images=[b"never opened"])
    assert Routed().route(text, reads) == [False, True, False]
    assert Routed().route(seen, reads) == [True, False, True]
    assert Routed(on_text="all").route(text, reads) == [True, True, True]
    assert Routed(on_text="all").route(seen, reads) == [True, False, True]
    assert Routed().route(text, [True, True]) == [True, True]  # nobody reads text alone
    assert Routed().route(seen, [False]) == [True]


def test_routed_is_the_mean_of_those_that_were_asked() -> None:
    nan = float("nan")
    members = torch.tensor([[nan, 1.0], [5.0, nan], [nan, 2.0]])
    assert Routed()(members, ranked(1, 1)).tolist() == [5.0, 1.5]  # 5 alone, (1 + 2) / 2


@pytest.mark.parametrize("cls", [AccuracyWeighted, ConfidenceWeighted, Stacked])
def test_nothing_is_learned_of_ties(cls: type[Linear]) -> None:
    with pytest.raises(
        DataError, match="^there is no pair whose order is known; give comparisons of 2 responses and more$"
    ):
        cls().fit(MEMBERS, ranked(2, is_tied=True))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (AccuracyWeighted, "no member has a pair in order, so none can be given a weight"),
        (ConfidenceWeighted, "no member's mean margin is above 0, so none can be given a weight"),
    ],
)
def test_members_that_are_all_wrong_get_no_weights(cls: type[Linear], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        cls().fit(-MEMBERS, ranked(2))


def test_what_has_learned_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match="^ZMean has learned nothing; fit it first$"):
        ZMean()(MEMBERS, ranked(2))
    ensembler = fitted(Stacked(), MEMBERS[:2], ranked(2))
    with pytest.raises(ConfigError, match="^Stacked has learned of 2 members, not 3; fit it first$"):
        ensembler(MEMBERS, ranked(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanMinusStd(coefficient=-1.0), "coefficient is a finite number >= 0, not -1.0"),
        (lambda: Stacked(l2=0.0), "l2 is a finite number > 0, not 0.0"),
    ],
)
def test_an_option_out_of_range_says_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls.unit is None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_single_member_is_returned_unchanged(cls: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = ranked(*[2] * 50)
    members = (torch.randn(1, 100) + torch.tensor([1.0, 0.0]).repeat(50)).to(dtype)
    rewards = fitted(cls(), members, rows)(members, rows)
    assert rewards.dtype == dtype
    assert torch.equal(rewards, members[0])


@hypothesis.given(
    sizes=strategies.lists(strategies.integers(2, 4), min_size=1, max_size=5),
    num_members=strategies.integers(1, 5),
    seed=strategies.integers(0, 2**31),
    cls=strategies.sampled_from(ALL),
)
@hypothesis.settings(max_examples=150)
def test_order_of_members_state_and_type_do_not_matter(
    sizes: list[int], num_members: int, seed: int, cls: Any
) -> None:
    rows = ranked(*sizes)
    generator = torch.Generator().manual_seed(seed)
    # Each knows the order, since of members that are all wrong nothing can be learned.
    right = torch.cat([-torch.arange(size) for size in sizes]).float()
    own = torch.tensor(10.0) ** torch.randn(num_members, 1, generator=generator)
    members = own * (right + 0.2 * torch.rand(num_members, len(right), generator=generator))
    ensembler = fitted(cls(), members, rows)
    rewards = ensembler(members, rows)
    turned = members.flip(0)
    assert torch.allclose(fitted(cls(), turned, rows)(turned, rows), rewards, rtol=1e-4, atol=1e-5)
    # All members have the same order, so it is that of the rewards.
    assert bool((centred(rewards[None], rows)[0].split(sizes)[0].diff() < 0).all()) or cls is MeanMinusStd
    if ensembler.learns:
        again = cls()
        again.load_state(json.loads(json.dumps(ensembler.state())))
        assert torch.equal(again(members, rows), rewards)


@pytest.mark.parametrize(
    ("shape", "shown"), [((3,), r"\[3\]"), ((0, 3), r"\[0, 3\]"), ((1, 2, 3), r"\[1, 2, 3\]")]
)
@pytest.mark.parametrize("cls", [Mean, Min, RankMean, Routed, AccuracyWeighted])
def test_members_of_another_shape_are_refused(cls: Any, shape: tuple[int, ...], shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^members must be \[M, N\] with M >= 1, not of shape {shown}$"):
        cls()(torch.zeros(shape), ranked(3))


def test_rewards_of_other_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="^2 rewards a member for 3 responses$"):
        RankMean()(MEMBERS, ranked(3))
