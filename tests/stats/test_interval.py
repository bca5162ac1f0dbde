"""The interval of an accuracy, against numbers worked by hand and against what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.stats.interval import interval_of, wilson


def test_wilson_of_eight_in_ten() -> None:
    # z = 1.959964, z^2 = 3.841459, n = 10, p = 0.8:
    # scale  = 1 + 0.3841459                          = 1.3841459
    # centre = (0.8 + 0.1920729) / 1.3841459          = 0.7167401
    # half   = 1.959964 / 1.3841459
    #          * sqrt(0.8 * 0.2 / 10 + 3.841459 / 400) = 1.4160097 * sqrt(0.0256036) = 0.2265775
    low, high = wilson(0.8, 10)
    assert low == pytest.approx(0.7167401 - 0.2265775, abs=1e-6)
    assert high == pytest.approx(0.7167401 + 0.2265775, abs=1e-6)


def test_one_pair_a_comparison_is_plain_wilson() -> None:
    unit_scores = np.array([1.0] * 8 + [0.0] * 2)
    found = interval_of(unit_scores, np.arange(10))
    # deff = 10/9 * (8 * 0.2^2 + 2 * 0.8^2) / 100 / (0.16 / 10) = 10/9: of K - 1 instead of K only.
    assert found.num_effective == pytest.approx(9)
    assert (found.low, found.high) == wilson(0.8, found.num_effective)
    assert (found.value, found.num_pairs) == (0.8, 10)


def test_pairs_that_are_copies_of_each_other_count_once() -> None:
    once = np.array([1.0] * 30 + [0.0] * 10)
    single = interval_of(once, np.arange(40))
    copied = interval_of(np.repeat(once, 7), np.repeat(np.arange(40), 7))
    assert copied.num_pairs == 280
    assert copied.num_effective == pytest.approx(single.num_effective)
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))


def test_the_design_effect_of_two_comparisons_by_hand() -> None:
    # Two comparisons with 2 and 4 pairs: c = (2, 1), m = (2, 4), p = 3/6.
    # spread = (2 - 1)^2 + (1 - 2)^2 = 2;  clustered = 2/1 * 2 / 36 = 1/9;  simple = 0.25 / 6 = 1/24
    # deff = (1/9) / (1/24) = 24/9;  effective = 6 * 9 / 24 = 2.25
    found = interval_of(np.array([1.0, 1, 1, 0, 0, 0]), np.array([5, 5, 9, 9, 9, 9]))
    assert found.num_effective == pytest.approx(2.25)


@pytest.mark.parametrize("unit_scores", [0.0, 1.0])
def test_where_all_agree_the_pairs_of_a_comparison_are_taken_for_copies(unit_scores: float) -> None:
    # Nothing varies, so nothing tells how alike they are: 6^2 / (2^2 + 4^2) = 1.8.
    found = interval_of(np.full(6, unit_scores), np.array([0, 0, 1, 1, 1, 1]))
    assert found.num_effective == pytest.approx(1.8)
    assert found.low <= unit_scores <= found.high


def test_a_single_comparison_is_one_observation() -> None:
    assert interval_of(np.array([1.0, 0, 1]), np.zeros(3, dtype=np.int64)).num_effective == 1


def test_no_pair_has_no_interval() -> None:
    with pytest.raises(ValueError, match="^an interval needs at least one pair$"):
        interval_of(np.array([]), np.array([], dtype=np.int64))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 5)), min_size=1, max_size=40))
def test_the_share_lies_in_its_interval_and_more_is_never_claimed_than_there_is(
    pairs: list[tuple[float, int]],
) -> None:
    unit_scores, group = (np.array(column) for column in zip(*pairs, strict=True))
    found = interval_of(unit_scores, group)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert 0 < found.num_effective <= found.num_pairs + 1e-9
    order = np.random.default_rng(0).permutation(len(pairs))
    again = interval_of(unit_scores[order], group[order] * 7)
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_nineteen_of_twenty_intervals_hold_the_truth_where_pairs_share_comparisons() -> None:
    """The plain interval, on the same pairs, holds it far less often: the reason for the design effect."""
    chance = np.random.default_rng(0)
    num_runs, num_groups, size, truth = 800, 80, 7, 0.8
    held = held_plainly = 0
    for _ in range(num_runs):
        # Each comparison has an ease of its own that its pairs share: intraclass correlation 1 / (4 + 1 + 1).
        ease = chance.beta(truth * 5, (1 - truth) * 5, num_groups)
        unit_scores = (chance.random((num_groups, size)) < ease[:, None]).astype(np.float64).ravel()
        found = interval_of(unit_scores, np.repeat(np.arange(num_groups), size))
        held += found.low <= truth <= found.high
        low, high = wilson(found.value, found.num_pairs)
        held_plainly += low <= truth <= high
    assert 0.925 <= held / num_runs <= 0.975
    assert held_plainly / num_runs < 0.9
