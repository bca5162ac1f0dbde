"""Verdicts: pairs, answers, and the rewards that follow, held to hand-computed numbers."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.paradigms.verdicts import PRIOR, chosen_pairs, read_verdict, rewards_of


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<think>one is true</think><answer>1</answer>", 1),
        (" <think>a\nb</think>\n<answer> 2 </answer>\n", 2),
        ("<think></think><answer>1</answer>", 1),
        ("<answer>1</answer>", None),
        ("<think>1</think><answer>3</answer>", None),
        ("<think>1</think><answer>1</answer> or 2", None),
        ("<think>I prefer 2", None),
        ("2", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_in_its_form_and_never_guessed(text: str, verdict: int | None) -> None:
    assert read_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<think>2 is long</think><answer>1</answer> 2", 1),
        ("<answer> 2 </answer>", 2),
        ("Response 2 is vague, so I choose 1", 1),
        ("<answer>Response 1</answer>", 1),
        ("neither", 2),
        ("", 2),
    ],
)
def test_the_scripts_of_r1_reward_make_a_verdict_of_every_text(text: str, verdict: int) -> None:
    assert read_verdict(text, "r1-reward") == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Answer 1 is better", 1),
        ("Its colours are right. Answer 2 is better.", 2),
        ("One might say that Answer 1 is better, but in truth answer 2 is better.", 2),
        ("<think>Answer 2 is better in clarity. 9+8=17</think><answer>Answer 1 is better</answer>", 1),
        ("<think>Answer 2 is better</think><answer>both</answer>", None),
        ("Answer 2 is not better", None),
        ("Answer 12 is better", None),
        ("2", None),
        ("", None),
    ],
)
def test_the_sentence_of_unified_reward_is_read(text: str, verdict: int | None) -> None:
    assert read_verdict(text, "unified-reward") == verdict


@given(st.integers(2, 12), st.one_of(st.none(), st.integers(1, 80)))
def test_chosen_pairs_connect_all_responses_and_keep_to_their_number(num: int, allowed: int | None) -> None:
    pairs = chosen_pairs(num, allowed)
    every = set(combinations(range(num), 2))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= every
    assert len(pairs) == min(len(every), max(allowed or len(every), num - 1))
    assert all(map(math.isfinite, rewards_of(dict.fromkeys(pairs, 0.5), num, "wins")))


def test_wins_are_the_mean_share_against_those_it_met() -> None:
    # 0 beats 1 by .9 and 2 by .6; 1 beats 2 by .2.
    rewards = rewards_of({(0, 1): 0.9, (0, 2): 0.6, (1, 2): 0.2}, 3, "wins")
    assert rewards == pytest.approx([(0.9 + 0.6) / 2, (0.1 + 0.2) / 2, (0.4 + 0.8) / 2])


def test_pairs_without_a_verdict_are_left_out() -> None:
    rewards = rewards_of({(0, 1): 1.0, (0, 2): None, (1, 2): 0.5}, 3, "wins")
    assert rewards == pytest.approx([1.0, (0.0 + 0.5) / 2, 0.5])


@pytest.mark.parametrize("aggregate", ["wins", "bradley-terry"])
def test_responses_that_nothing_connects_have_no_rewards(aggregate: str) -> None:
    rewards = rewards_of({(0, 1): 1.0, (1, 2): None, (0, 2): None}, 3, aggregate)
    assert all(map(math.isnan, rewards))


def test_fitted_rewards_of_two_are_where_the_gradient_vanishes() -> None:
    first, second = rewards_of({(0, 1): 0.8}, 2, "bradley-terry")
    assert second == pytest.approx(-first)
    # s(r_0 - r_1) - p + PRIOR r_0 = 0
    assert 1 / (1 + math.exp(-2 * first)) - 0.8 + PRIOR * first == pytest.approx(0, abs=1e-9)


@given(st.data(), st.integers(2, 6))
def test_fitted_rewards_are_finite_and_turn_with_the_preferences(data: st.DataObject, num: int) -> None:
    shares = {pair: data.draw(st.floats(0, 1)) for pair in combinations(range(num), 2)}
    rewards = rewards_of(shares, num, "bradley-terry")
    turned = rewards_of({pair: 1 - share for pair, share in shares.items()}, num, "bradley-terry")
    assert turned == pytest.approx([-reward for reward in rewards], abs=1e-6)
    assert all(map(math.isfinite, rewards))
