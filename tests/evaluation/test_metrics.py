"""Every metric, against numbers worked by hand and against a plain computation."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basereward import Comparison, DataError
from basereward.evaluation import pair_metrics
from basereward.evaluation.metrics import PairMetrics, metrics_of
from basereward.evaluation.scored_pairs import PairCollector


def metrics(
    *scored: tuple[Comparison, list[float]], gaps: tuple[float, ...] = (0.5, 1.5, 3.0)
) -> PairMetrics:
    collector = PairCollector()
    for comparison, rewards in scored:
        collector.add(comparison, rewards)
    return metrics_of(collector.collected(), gaps=gaps)


def ranked(*ranks: float, source: str = "") -> Comparison:
    return Comparison("p", [f"r{number}" for number in range(len(ranks))], ranks=ranks, source=source)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_equal_rewards_count_half_and_ties_of_the_data_not_at_all() -> None:
    # Pairs (0,1) right, (0,2) right, (1,2) tied in the data; one equal; one wrong: (1 + 1 + 0.5 + 0) / 4.
    found = metrics((ranked(0, 1, 1), [3, 1, 2]), (ranked(0, 1), [1, 1]), (ranked(0, 1), [1, 2]))
    assert found.accuracy.value == pytest.approx(2.5 / 4)
    assert (found.accuracy.num_pairs, found.num_label_ties, found.num_reward_ties) == (4, 1, 1)
    assert found.tie_rate == found.to_dict()["tie_rate"] == 1 / 4
    assert found.num_comparisons == 3


def test_top1_takes_any_best_response_and_shares_equal_rewards() -> None:
    # Best are 0 and 1, first is 1: 1.  Best is 0, first are 0 and 2: 1/2.  Best is 0, first is 1: 0.
    found = metrics((ranked(0, 0, 1), [1, 2, 0]), (ranked(0, 1, 2), [4, 1, 4]), (ranked(0, 1), [1, 2]))
    assert found.top1.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.top1.num_pairs == 3
    # Blindly: 2 of 3, 1 of 3, 1 of 2.
    assert found.top1_chance == pytest.approx((2 / 3 + 1 / 3 + 1 / 2) / 3)


def test_margin_log_loss_and_brier_by_hand() -> None:
    # Margins 2 and -1; p = sigmoid(2) = 0.880797, sigmoid(-1) = 0.268941.
    found = metrics((ranked(0, 1), [2, 0]), (ranked(1, 0), [1, 0]))
    assert found.margin == pytest.approx(0.5)
    assert found.margin_std == pytest.approx(1.5)  # 2 and -1 lie 1.5 from their mean
    assert found.log_loss == pytest.approx((-math.log(0.880797) - math.log(0.268941)) / 2, abs=1e-6)
    assert found.brier == pytest.approx(((1 - 0.880797) ** 2 + (1 - 0.268941) ** 2) / 2, abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # Confidences: sigmoid(0.1) = 0.52498 twice, one right and one wrong; sigmoid(3) = 0.95257 once, right.
    # ECE = 2/3 * |0.5 - 0.52498| + 1/3 * |1 - 0.95257|
    found = metrics((ranked(0, 1), [0.1, 0]), (ranked(0, 1), [0, 0.1]), (ranked(0, 1), [3, 0]))
    assert [(part.low, part.num_pairs, part.accuracy) for part in found.bins] == [
        (0.5, 2, 0.5),
        (pytest.approx(0.95), 1, 1.0),
    ]
    assert found.ece == pytest.approx(2 / 3 * (sigmoid(0.1) - 0.5) + 1 / 3 * (1 - sigmoid(3)))


def test_what_a_temperature_mends_is_no_fitted_calibration_error() -> None:
    # Three of four pairs with a margin of 20 are right, and one more is counted that is half right and half
    # wrong: the log-odds of (3 + 0.5) : (1 + 0.5).
    found = metrics(*((ranked(0, 1), [20, 0]) for _ in range(3)), (ranked(0, 1), [0, 20]))
    assert found.temperature == pytest.approx(20 / math.log(3.5 / 1.5), rel=1e-6)
    assert found.ece == pytest.approx(0.25, abs=1e-6)
    assert found.fitted_ece == pytest.approx(3 / 4 - 3.5 / 5)


def test_a_hopelessly_sure_model_has_finite_numbers() -> None:
    found = metrics((ranked(0, 1), [-1e4, 1e4]))
    assert (found.log_loss, found.brier, found.ece) == (2e4, 1.0, 1.0)
    assert found.bins[-1].high == 1.0


def test_accuracy_by_gap_counts_pairs_that_are_at_least_so_far_apart() -> None:
    comparison = Comparison("p", ["a", "b", "c"], ratings=[4, 3.5, 1])
    # Gaps .5 (wrong), 3 (right), 2.5 (right).
    found = metrics((comparison, [2, 3, 1]), gaps=(0.5, 1.5, 3.0, 9.0))
    assert {gap: (part.value, part.num_pairs) for gap, part in found.by_gap.items()} == {
        0.5: (pytest.approx(2 / 3), 3),
        1.5: (1.0, 2),
        3.0: (1.0, 1),
    }
    assert metrics((ranked(0, 1), [1, 0])).by_gap == {}


def test_accuracy_by_source() -> None:
    found = metrics(
        (ranked(0, 1, source="a"), [1, 0]), (ranked(0, 1, source="b"), [0, 1]), (ranked(0, 1), [1, 0])
    )
    assert {name: part.value for name, part in found.by_source.items()} == {"a": 1.0, "b": 0.0, "": 1.0}


def test_the_longer_response_is_a_baseline() -> None:
    # Better is longer, shorter, of equal length.
    texts = [("aaaa", "b"), ("a", "bbbb"), ("aa", "bb")]
    scored = [(Comparison("p", pair, ranks=[0, 1]), [1.0, 0.0]) for pair in texts]
    found = metrics(*scored)
    assert found.longer_baseline.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.where_longer is not None
    assert found.where_shorter is not None
    assert (found.where_longer.num_pairs, found.where_shorter.num_pairs) == (1, 1)


@pytest.mark.parametrize(("sign", "correlation"), [(1, 1.0), (-1, -1.0), (0, None)])
def test_rewards_that_follow_length_are_found_out_within_comparisons(
    sign: int, correlation: float | None
) -> None:
    # The second prompt has higher rewards and shorter responses; that must not hide what happens within each.
    first = Comparison("p", ["a" * 50, "a" * 60, "a" * 90], ranks=[0, 1, 2])
    second = Comparison("p", ["a", "a" * 21], ranks=[0, 1])
    found = metrics(
        (first, [sign * 5.0, sign * 6.0, sign * 9.0]), (second, [100 + sign * 0.1, 100 + sign * 2.1])
    )
    assert found.length_correlation == (None if correlation is None else pytest.approx(correlation))


def test_auc_compares_across_prompts() -> None:
    # Chosen 1 and 10, rejected 0 and 9: 1 > 0, 1 < 9, 10 > 0, 10 > 9.
    assert metrics((ranked(0, 1), [1, 0]), (ranked(0, 1), [10, 9])).auc == pytest.approx(3 / 4)


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(DataError) as error:
        metrics((ranked(0, 0), [1, 2]))
    assert (
        str(error.value) == "there is nothing to evaluate: no pair of responses has a known order; 1 are tied"
    )
    with pytest.raises(DataError) as error:
        pair_metrics([], [])
    assert str(error.value) == "there is nothing to evaluate: no pair of responses has a known order"
    with pytest.raises(DataError) as error:
        pair_metrics([Comparison("p", ["a"])], [[1.0]])
    assert str(error.value) == "responses: there is one response; two are needed to compare"
    with pytest.raises(DataError, match="^ranks: the comparison has no ranks"):
        pair_metrics([Comparison("p", ["a", "b"])], [[1.0, 2.0]])


REWARDS = st.floats(-20, 20, allow_nan=False).map(lambda value: round(value, 1))
SCORED = st.lists(st.tuples(st.integers(0, 3), REWARDS, st.integers(1, 9)), min_size=2, max_size=5)


@settings(deadline=None)
@given(st.lists(SCORED, min_size=1, max_size=8))
def test_the_metrics_are_those_of_a_plain_computation(rows: list[list[tuple[int, float, int]]]) -> None:
    comparisons, rewards = [], []
    pairs: list[tuple[float, float, int]] = []  # chosen, rejected, how much longer the chosen one is
    tops = []
    for row in rows:
        # Texts differ, so that equal ones with different ranks are not refused.
        texts = [chr(97 + number) * length for number, (_, _, length) in enumerate(row)]
        comparisons.append(Comparison("p", texts, ranks=[rank for rank, _, _ in row]))
        rewards.append([reward for _, reward, _ in row])
        own = []
        for first, second in combinations(row, 2):
            if first[0] != second[0]:
                better, worse = (first, second) if first[0] < second[0] else (second, first)
                own.append((better[1], worse[1], better[2] - worse[2]))
        pairs += own
        if own:
            highest = [rank for rank, reward, _ in row if reward == max(rewards[-1])]
            best = min(rank for rank, _, _ in row)
            tops.append(highest.count(best) / len(highest))
    if not pairs:
        with pytest.raises(DataError):
            pair_metrics(comparisons, rewards)
        return

    def unit_scores(difference: float) -> float:
        return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0

    count = len(pairs)
    margins = [chosen - rejected for chosen, rejected, _ in pairs]
    found = pair_metrics(comparisons, rewards)
    assert found["num_pairs"] == count
    assert found["num_comparisons"] == len(rows)
    assert found["accuracy"] == pytest.approx(sum(map(unit_scores, margins)) / count)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert found["top1"] == pytest.approx(sum(tops) / len(tops))
    assert found["margin"] == pytest.approx(sum(margins) / count)
    assert found["log_loss"] == pytest.approx(
        sum(math.log1p(math.exp(-margin)) for margin in margins) / count
    )
    assert found["brier"] == pytest.approx(sum((1 - sigmoid(margin)) ** 2 for margin in margins) / count)
    assert found["longer_baseline"] == pytest.approx(
        sum(unit_scores(longer) for _, _, longer in pairs) / count
    )
    assert found["auc"] == pytest.approx(
        sum(unit_scores(chosen - rejected) for chosen, _, _ in pairs for _, rejected, _ in pairs) / count**2
    )
    bins: dict[int, list[tuple[float, float]]] = {}
    for margin in margins:
        sure = sigmoid(abs(margin))
        bins.setdefault(min(int((sure - 0.5) * 20), 9), []).append((sure, unit_scores(margin)))
    ece = sum(abs(sum(sure - right for sure, right in entries)) for entries in bins.values()) / count
    assert found["ece"] == pytest.approx(ece, abs=1e-9)


def grouped(group: str, category: str = "") -> Comparison:
    meta = {"group": group} | ({"category": category} if category else {})
    return Comparison("p", ["a", "b"], ranks=[0, 1], meta=meta)


def test_comparisons_of_one_group_are_worth_less_than_independent_ones() -> None:
    # Two groups of three comparisons each, one all right and one all wrong: the same numbers as two
    # comparisons of three pairs each, which by the formula of `interval_of` are worth one pair.
    rewards = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3
    together = metrics(*zip([grouped("g")] * 3 + [grouped("h")] * 3, rewards, strict=True))
    apart = metrics(*zip([ranked(0, 1)] * 6, rewards, strict=True))
    assert together.accuracy.value == apart.accuracy.value == 0.5
    assert together.accuracy.num_effective == pytest.approx(1)
    assert apart.accuracy.num_effective == pytest.approx(5)


def test_accuracy_by_category_is_of_the_comparisons_that_name_one() -> None:
    found = metrics(
        (grouped("1", "x"), [1, 0]),
        (grouped("2", "x"), [0, 1]),
        (grouped("3", "y"), [1, 0]),
        (ranked(0, 1), [1, 0]),
    )
    assert {name: (part.value, part.num_pairs) for name, part in found.by_category.items()} == {
        **{"x": (0.5, 2), "y": (1, 1), "": (1, 1)}
    }
    assert metrics((ranked(0, 1), [1, 0])).by_category == {}


@pytest.mark.parametrize(
    ("better", "worse", "name"),
    [
        (1, 3, "under half as long"),
        (1, 2, "0.5 to 0.8 times as long"),
        (4, 5, "0.8 to 1.25 times as long"),
        (3, 3, "0.8 to 1.25 times as long"),
        (5, 4, "1.25 to 2 times as long"),
        (2, 1, "over twice as long"),
    ],
)
def test_accuracy_by_length_tells_how_long_the_better_response_is(better: int, worse: int, name: str) -> None:
    comparison = Comparison("p", ["a" * better, "b" * worse], ranks=[0, 1])
    assert list(metrics((comparison, [1, 0])).by_length) == [name]
