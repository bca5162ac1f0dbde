"""Each shape against its formula, on rewards of which one is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from basereward.errors import ConfigError
from basereward.integrations import shaping
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import Rollouts, Shape, apply

RAW = (2.0, None, -1.0, 0.0)
ROLLOUTS = Rollouts(
    completions=("a cat", "", "a dog", "a cat"),
    groups=(0, 0, 0, 1),
    lengths=(2, 0, 7, 3),
    columns={"answer": ["a cat"] * 4, "gold": ["a dog"] * 4},
)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], [2.0, None, -1.0, 0.0]),
        ([shaping.sigmoid()], [sigmoid(2), None, sigmoid(-1), 0.5]),
        ([shaping.sigmoid(center=1.0, scale=2.0)], [sigmoid(0.5), None, sigmoid(-1), sigmoid(-0.5)]),
        # Better than a response of 0 with s(2/2), than one of 2 with s(0): the mean of both.
        (
            [shaping.calibrated([0.0, 2.0], temperature=2.0)],
            [
                (sigmoid(1) + 0.5) / 2,
                None,
                (sigmoid(-0.5) + sigmoid(-1.5)) / 2,
                (0.5 + sigmoid(-1)) / 2,
            ],
        ),
        ([shaping.hybrid(exact_match)], [1.0, None, sigmoid(-1), 1.0]),
        ([shaping.hybrid(exact_match, column="gold")], [sigmoid(2), None, 1.0, 0.5]),
        (
            [shaping.hybrid(exact_match, column="gold", otherwise=shaping.clipped(0.0, 0.9))],
            [0.9, None, 1.0, 0.0],
        ),
        # Of 2 and -1 the mean is 0.5 and the standard deviation sqrt(2 * 1.5 ** 2 / 1); of one there is none.
        (
            [shaping.group_normalized(epsilon=1e-9)],
            [1.5 / math.sqrt(4.5), None, -1.5 / math.sqrt(4.5), 0.0],
        ),
        # 7 tokens are 4 more than are free, 4 * 0.25 = 1.
        ([shaping.length_penalized(per_token=0.25, free_tokens=3)], [2.0, None, -2.0, 0.0]),
        ([shaping.clipped(-0.5, 1.0)], [1.0, None, -0.5, 0.0]),
        ([shaping.clipped(0.0, 1.0), shaping.length_penalized(per_token=0.5)], [0.0, None, -3.5, -1.5]),
    ],
)
def test_a_shape_is_its_formula(shapes: list[Shape], expected: list[float | None]) -> None:
    found = apply(shapes, RAW, ROLLOUTS)
    assert [value is None for value in found] == [value is None for value in expected]
    assert [value for value in found if value is not None] == pytest.approx(
        [value for value in expected if value is not None]
    )


def test_a_right_answer_that_could_not_be_scored_is_right() -> None:
    rollouts = Rollouts(["a cat"], [0], [2], {"answer": ["a cat"]})
    assert apply([shaping.hybrid(exact_match)], [None], rollouts) == [1.0]


def test_the_sigmoid_takes_rewards_of_any_size() -> None:
    assert apply([shaping.sigmoid()], [1e6, -1e6], Rollouts(["a", "b"], [0, 0], [1, 1])) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shaping.sigmoid(scale=0.0),
            "center is a finite number and scale one > 0, not 0.0 and 0.0",
        ),
        (
            lambda: shaping.calibrated([]),
            "references are one or more finite rewards and temperature is a number > 0, not 0 rewards "
            "and 1.0",
        ),
        (lambda: shaping.group_normalized(epsilon=0.0), "epsilon is a number > 0, not 0.0"),
        (
            lambda: shaping.length_penalized(per_token=-1.0),
            "per_token and free_tokens are numbers >= 0, not -1.0 and 0",
        ),
        (lambda: shaping.clipped(1.0, 1.0), "low is less than high; they are 1.0 and 1.0"),
        (
            lambda: apply([shaping.hybrid(exact_match, column="right")], RAW, ROLLOUTS),
            "the data set has no column 'right'; columns: answer, gold",
        ),
    ],
)
def test_a_wrong_setting_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message
