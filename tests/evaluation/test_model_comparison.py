"""Two models on the same comparisons."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, ConfigError
from basereward.evaluation import evaluate, save_report
from basereward.evaluation.model_comparison import PairedMetrics, is_saved, mcnemar, read_results
from basereward.evaluation.results import Result


def result(number: int, *rewards: float, name: str = "", group: str = "") -> Result:
    ranks = tuple(map(float, range(len(rewards))))
    return Result(name or f"{number}", "", number, group, rewards, ranks, rewards[0] - rewards[-1])


def test_mcnemar_by_hand() -> None:
    # 2 * (C(7,0) + C(7,1) + C(7,2)) / 2^7 = 2 * 29 / 128
    assert mcnemar(5, 2) == pytest.approx(58 / 128)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) == 1
    assert mcnemar(3000, 2000) < 1e-40


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_sign_test(first: int, second: int) -> None:
    num = first + second
    tail = sum(comb(num, count) for count in range(num + 1) if count <= min(first, second))
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(min(1, 2 * tail / 2**num))


def test_the_difference_is_of_what_both_have_scored() -> None:
    first = [result(0, 1, 0), result(1, 1, 0), result(2, 0, 1), result(4, 1, 0)]
    second = [result(0, 1, 0), result(1, 0, 1), result(2, 0, 1), result(3, 1, 0)]
    sides = PairedMetrics.of_results(first, second)
    assert (sides.num, sides.num_left_out) == (3, 2)
    pairs = sides.differences()[0]
    assert (pairs.name, pairs.num) == ("pair accuracy", 3)
    # Right are 2 of 3 and 1 of 3; number 1 is the only one that differs.
    assert (pairs.first, pairs.second, pairs.value) == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    assert (pairs.only_first, pairs.only_second, pairs.p) == (1, 0, 1)
    assert pairs.low <= pairs.value <= pairs.high


def test_pairs_of_one_group_are_drawn_together() -> None:
    better = [result(number, 1, 0, group=f"{number // 10}") for number in range(100)]
    worse = [result(number, number % 20 < 10, 0.5, group=f"{number // 10}") for number in range(100)]
    alone = [result(number, number % 20 < 10, 0.5) for number in range(100)]
    grouped = PairedMetrics.of_results(better, worse).differences()[0]
    single = PairedMetrics.of_results([result(number, 1, 0) for number in range(100)], alone).differences()[0]
    assert grouped.value == single.value == 0.5
    # Ten groups instead of a hundred units: sqrt(10) times as wide.
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(10**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            [result(0, 1, 0, name="x")],
            "the evaluations are not of the same comparisons: number 0 is '0' in one and 'x' in the other",
        ),
        ([result(7, 1, 0)], "the evaluations have no comparison in common"),
    ],
)
def test_evaluations_of_other_comparisons_are_refused(second: list[Result], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        PairedMetrics.of_results([result(0, 1, 0)], second)
    assert str(error.value) == message


def test_a_saved_evaluation_is_read_as_it_was(model: object, tmp_path: Path) -> None:
    rows = [Comparison("p", ["a 1", "b 0"], ranks=[0, 1], id="x", meta={"group": "g"})]
    found = evaluate(model, rows)  # type: ignore[arg-type]
    save_report(found, tmp_path)
    assert is_saved(str(tmp_path))
    assert is_saved(str(tmp_path / "rewards.jsonl"))
    assert not is_saved(str(tmp_path / "plots"))
    assert read_results(str(tmp_path)) == read_results(str(tmp_path / "rewards.jsonl")) == found.results
    assert found.results[0].group == "g"


@pytest.mark.parametrize("line", ["{", '{"line": 1, "rewards": [1]}', "[]"])
def test_a_line_of_something_else_is_named(line: str, tmp_path: Path) -> None:
    good = json.dumps(result(0, 1, 0).to_dict())
    (tmp_path / "rewards.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read_results(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path}/rewards.jsonl:2 is no line of an evaluation; give a directory that "
        "`basereward evaluate --output` wrote"
    )
