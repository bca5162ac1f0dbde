"""Rules that tell whether a completion has the right answer, for verifiable rewards."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from basereward.errors import ConfigError, DataError

Rule = Callable[[str, Any], bool]
"""Returns whether a completion matches the right answer."""

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
BOXED = "\\boxed{"
CHOICE = re.compile(r"\(?\b([A-Z])\b\)?")
STATEMENT = re.compile(r"\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b\)?", re.IGNORECASE)


def exact_match(completion: str, answer: str) -> bool:
    """Compare the answer part of a completion with the right answer, ignoring case, spaces and a final dot.

    The answer part is the content of the last <answer>...</answer>, else of the last \\boxed{...}, else all.
    """
    return _plain(answer_part(completion)) == _plain(str(answer))


def choice_letter(completion: str, answer: str) -> bool:
    """Compare the letter that a completion chooses with the right one.

    Its answer part is the letter, as in "B", "(B)" or "B. a cat", or it says "the answer is B"; the last such
    counts. A letter within other words is no choice.
    """
    part = answer_part(completion).strip()
    statements = STATEMENT.findall(part)
    letter = statements[-1] if statements else None
    if letter is None and (first := CHOICE.match(part)) and not re.match(r"\s+[a-z]", part[first.end() :]):
        letter = first.group(1)
    return letter is not None and letter.upper() == str(answer).strip().strip("().").upper()


def math_verify(completion: str, answer: str) -> bool:
    """Compare two mathematical expressions by the package math-verify: 1/2, 0.5 and \\frac{1}{2} are equal.

    Raises:
        ConfigError: When math-verify isn't installed.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ConfigError("the rule math_verify needs math-verify: pip install 'basereward[rl]'") from error
    gold = parse(answer if "$" in answer or BOXED in answer else f"${answer}$")
    if not gold:
        raise DataError(f"{answer!r} is no mathematical expression", field="answer")
    return bool(verify(gold, parse(completion)))


def answer_part(completion: str) -> str:
    """Return the content of the last <answer>...</answer>, else of the last \\boxed{...}, else all."""
    if tagged := ANSWER.findall(completion):
        return str(tagged[-1])
    start = completion.rfind(BOXED)
    if start >= 0:
        depth = 1
        for place in range(start + len(BOXED), len(completion)):
            depth += {"{": 1, "}": -1}.get(completion[place], 0)
            if depth == 0:
                return completion[start + len(BOXED) : place]
    return completion


def _plain(text: str) -> str:
    return " ".join(text.split()).strip().rstrip(".").casefold()
