"""Rules find the right answer in the forms that policies write it in, and in no other."""

from __future__ import annotations

import sys

import pytest

from basereward.errors import ConfigError, DataError
from basereward.integrations.rules import answer_part, choice_letter, exact_match, math_verify


@pytest.mark.parametrize(
    ("completion", "part"),
    [
        ("a cat", "a cat"),
        ("<think>maybe <answer>a dog</answer></think><answer>a cat</answer>", "a cat"),
        (r"so it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"not closed \boxed{1", r"not closed \boxed{1"),
    ],
)
def test_the_answer_part_is_the_last_that_is_marked_else_all(completion: str, part: str) -> None:
    assert answer_part(completion) == part


@pytest.mark.parametrize(
    ("completion", "is_right"),
    [
        ("A  Cat.", True),
        ("<think>a dog?</think> <answer> a cat </answer>", True),
        ("a cat and a dog", False),
        ("", False),
    ],
)
def test_an_exact_match_ignores_case_spaces_and_a_final_dot(completion: str, is_right: bool) -> None:
    assert exact_match(completion, "a cat") is is_right


@pytest.mark.parametrize(
    ("completion", "is_right"),
    [
        ("B", True),
        ("(B)", True),
        ("B. a cat", True),
        ("B: a cat", True),
        ("The answer is B.", True),
        ("<answer>(b)</answer>", False),  # a small letter is no choice unless it is said to be one
        ("the answer is b", True),
        ("First I thought the answer is A. No, the answer is B", True),
        ("A big cat", False),
        ("A", False),
        ("A cat, so B", False),  # neither first nor said to be the answer
        ("Because of the cat", False),
        ("", False),
    ],
)
def test_a_choice_is_a_letter_that_stands_alone_or_is_said_to_be_the_answer(
    completion: str, is_right: bool
) -> None:
    assert choice_letter(completion, "B") is is_right
    assert choice_letter(completion, "(B)") is is_right


def test_math_verify_sees_that_two_expressions_are_equal() -> None:
    pytest.importorskip("math_verify")
    assert math_verify(r"it is \boxed{\frac{1}{2}}", "0.5")
    assert math_verify("the answer is 7", "$7$")
    assert not math_verify(r"\boxed{0.4}", "0.5")
    with pytest.raises(DataError) as caught:
        math_verify("7", "")
    assert str(caught.value) == "answer: '' is no mathematical expression"


def test_math_verify_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ConfigError) as caught:
        math_verify("7", "7")
    assert str(caught.value) == "the rule math_verify needs math-verify: pip install 'basereward[rl]'"
