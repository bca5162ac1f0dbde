"""Rules find the right answer in the forms that policies write it in, and in no other."""

from __future__ import annotations

import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from basereward.errors import ConfigError, DataError
from basereward.extras import install_command
from basereward.integrations.rules import answer_part, choice_letter, exact_match, math_verify


@pytest.mark.parametrize(
    ("completion", "part"),
    [
        ("a cat", "a cat"),
        ("<think>maybe <answer>a dog</answer></think><answer>a cat</answer>", "a cat"),
        (r"so it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"not closed \boxed{1", r"not closed \boxed{1"),
        (r"<think>\boxed{1} <answer>1</answer></think>2", "2"),
        ("<think><answer>1</answer></think>", ""),
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


CHOICES: dict[str, str | None] = {
    # A completion, and the letter that it chooses.
    "B": "B",
    "b": "B",
    "(B)": "B",
    "(b).": "B",
    "[B]": "B",
    "**B**": "B",
    "__B__": "B",
    "`B`": "B",
    "$B$": "B",
    "<b>B</b>": "B",
    r"\boxed{B}": "B",
    r"\boxed{\text{B}}": "B",
    r"$\mathrm{B}$": "B",
    "B.": "B",
    "B. a cat": "B",
    "B: a cat": "B",
    "B) a cat": "B",
    "(B) a cat": "B",
    "b) a cat": "B",
    "B - a cat": "B",
    "B\nbecause of its ears": "B",
    "<answer>B</answer>": "B",
    "<answer>(b)</answer>": "B",
    "<answer>B) a cat</answer>": "B",
    "<answer>\n**B.** a cat\n</answer>": "B",
    "The answer is B.": "B",
    "The answer is **B**.": "B",
    "The answer is (b).": "B",
    "The answer is: B": "B",
    "**Answer:** B": "B",
    "Answer: B": "B",
    "Final answer = B": "B",
    "the answer is b": "B",
    "The answer is B. Option A is a distractor.": "B",
    "The answer is B because option A has no cat.": "B",
    "The answer is A because it has a cat.": "A",
    "The answer is A and option B is a dog.": "A",
    "The answer is I because of the cat.": "I",
    "The answer is A\nThe cat sits.": "A",
    "I is correct.": "I",
    "The correct option is C, not A.": "C",
    "the best option I can see is B": "B",
    "The correct answer here is B.": "B",
    "I choose B.": "B",
    "I would go with option B.": "B",
    "B is correct.": "B",
    "Option B is the right one; I first took A.": "B",
    "Option B": "B",
    "The answer is A. Wait, no: it's B.": "B",
    "The answer is A. Actually, B.": "B",
    "Is the answer A? No, B.": "B",
    "Is it A? No. B!": "B",
    "It's not A, it's B": "B",
    "It is B because of the cat": "B",
    "My pick is (B)": "B",
    "The answer is 'B'": "B",
    "The answer is ‘B’.": "B",
    "- B": "B",
    "# B": "B",
    "> B": "B",
    "> - B. a cat": "B",
    "Ｂ": "B",
    "The answer is （Ｂ）": "B",
    "The answer is B. Paris.": "B",
    "B. B.": "B",
    # A small letter, but neither a nor i, at the end of a statement.
    "answer b": "B",
    "The answer is A? No, (b).": "B",
    "First I thought the answer is A. No, the answer is B": "B",
    "A or B? The answer is B.": "B",
    "<think>The answer is A.</think>B": "B",
    "<think>The answer is A. Or B? Option C.</think>\nOption B": "B",
    # No choice at all.
    "<think>The answer is B.</think>": None,
    "The answer is a cat.": None,
    "the answer is a": None,
    "The answer is a": None,
    "The answer is I don't know.": None,
    "The answer is I'd say a cat": None,
    "The answer is I was wrong.": None,
    "The answer is A with a cat.": None,
    "the best option I can see": None,
    "I think it is a cat.": None,
    "I, for one, see a cat.": None,
    "A big cat": None,
    "A cat, so B": None,
    "Because of the cat": None,
    "The answer is A or B.": None,
    "The answer is A, B": None,
    "The answer is A/B": None,
    "The answer is not B.": None,
    "Option A or option B": None,
    "Option A is a distractor.": None,
    "The answer is C++.": None,
    "The answer is an option": None,
    "The answer is A cat.": None,
    "An option a cat would choose": None,
    "The answer is A? No.": None,
    "Is the answer A? No.": None,
    "A. B. C. D.": None,
    "A\nB\nC": None,
    "The answer is B.A.": None,
    "The answer is D.C.": None,
    "The answer is C=mc^2": None,
    "The answer is C = mc^2": None,
    "D.C.": None,
    "answer a": None,
    "many answers b c": None,
    "It's A cat": None,
    "No, A dog": None,
    "No, I see a cat": None,
    "No. B is wrong": None,
    "If it's A, a cat": None,
    "": None,
}


@pytest.mark.parametrize("completion", CHOICES)
def test_a_choice_is_a_letter_that_stands_alone_or_is_said_to_be_the_answer(completion: str) -> None:
    for letter in "ABCDI":
        assert choice_letter(completion, letter) is (CHOICES[completion] == letter)
        assert choice_letter(completion, f"({letter.lower()})") is (CHOICES[completion] == letter)


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        *(("The answer is U.S.A.", "U"), ("The answer is E=mc^2", "E"), ("The answer is J. Smith", "J")),
        *(("U.S.A.", "U"), ("E=mc^2", "E"), ("J. Smith", "J")),
    ],
)
def test_letters_of_names_and_formulas_are_no_choices(completion: str, letter: str) -> None:
    assert not choice_letter(completion, letter)


NAMES = [
    "the",
    "answer",
    "is",
    "a",
    "an",
    "I",
    "option",
    "choice",
    "cat",
    "of",
    "b",
    "and",
    "or",
    "i",
    "so",
]
WORDS = st.lists(st.sampled_from(NAMES), max_size=9)


@given(WORDS, st.sampled_from(["", ".", "!"]))
def test_words_in_small_letters_choose_no_a_and_no_i(words: list[str], end: str) -> None:
    completion = " ".join(words) + end
    assume(completion.strip(".! ") not in ("a", "i", "I"))  # a letter alone
    assert not choice_letter(completion, "A")
    assert words[-1:] == ["I"] or not choice_letter(completion, "I")


@given(st.sampled_from("ABCDEFGH"), st.sampled_from(["{}", "**{}**", "({})", "`{}`", "[{}]", r"\text{{{}}}"]))
def test_a_statement_counts_before_mentions_of_others(letter: str, markup: str) -> None:
    others = [f"Option {other} is wrong." for other in "ABCDEFGH" if other != letter]
    stated = f"The answer is {markup.format(letter)}."
    for completion in (" ".join([*others, stated]), " ".join([stated, *others])):
        assert [choice_letter(completion, other) for other in "ABCDEFGH"] == [
            other == letter for other in "ABCDEFGH"
        ]


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
    assert str(caught.value) == f"the rule math_verify needs math-verify: {install_command('rl')}"
