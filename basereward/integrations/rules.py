"""Rules that tell whether a completion has the right answer, for verifiable rewards."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from basereward.errors import ConfigError, DataError
from basereward.extras import install_command

Rule = Callable[[str, Any], bool]
"""Returns whether a completion matches the right answer."""

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
BOXED = "\\boxed{"

MARKUP = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|textrm)\s*\{([^{}]*)\}|</?(?:b|i|em|strong|u|code)>|[*_`$\"“”]+"
    r"|(?<!\w)['‘]([A-Za-z])['’](?!\w)|\A\s*(?:[-#>•+]+\s+)+"
)
"""Markup around a letter; of LaTeX's text commands and of quotes the content stays."""

NAME = r"(?!\.[A-Za-z](?![a-z])|\s*=)(?!(?<=[J-Z])\.[ \t]+[A-Z][a-z]+[ \t]*(?:[.!;\n]|\Z))"
"""No abbreviation ("D.C."), formula ("E=mc^2") or initial ("J. Smith"); "B. Paris" is an option with text."""

LETTER = rf"(?:\(([A-Za-z])\)|\[([A-Za-z])\]|\{{([A-Za-z])\}}|([A-Z])(?![\w'’+#/-]){NAME})"
"""A capital letter that stands alone, or any letter in brackets."""

REST = r"(?!\s*(?:,|/|&|and\b|or\b)\s*[(\[]?[A-Z](?![\w'’]))(?!\s*\?)"
"""No second letter follows, as in "A or B", and no question mark."""

REASONS = "because|since|due"

ARTICLE = (
    r"(?<![AI])"
    rf"|(?<=A)(?![ \t]+(?!(?:{REASONS}|as|but|so|and|which|given)\b)[A-Za-z])"
    rf"|(?<=I)(?![ \t]+(?!(?:{REASONS})\b)[A-Za-z])"
)
"""An A or I before another word is no letter of a choice, but an article or a pronoun."""

STATEMENTS = (
    # "The answer is B", "the best option I can see is (b)", "Answer: B"
    rf"(?i:\b(?:answer|option|choice|pick)\b)[^.:;\n=]{{0,60}}?(?i:\bis\b|:|=)\s*{LETTER}(?:{ARTICLE}){REST}",
    r"(?i:\b(?:choose|chose|pick|picked|select|go with)\b)\s+(?i:option|answer|choice)?\s*"
    rf"{LETTER}(?:{ARTICLE}){REST}",
    # "No, B", "Wait, no: it's B"
    r"(?i:(?<!\bif )\bit(?:['’]s|\s+is)|\b(?:no|actually)\b\s*[,:.–—-]?)\s+(?i:option|answer|choice)?\s*"
    rf"{LETTER}(?:{ARTICLE}){REST}(?=\s*(?:[.,;!\n]|\Z|(?i:{REASONS})\b))",
    # "B is correct"
    rf"\b{LETTER}\s+(?i:is)\s+(?i:the\s+)?(?i:correct|right|best)\b",
)
STATEMENT = re.compile("|".join(STATEMENTS))
SMALL_STATEMENT = re.compile(r"(?i:\banswer)(?:\s*(?i:is\b|:)\s*|\s+)([b-hj-z])\s*[.!]?\s*\Z")
"""A small letter at the end of a statement, which is no article."""

ALONE = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:]?\s*\Z")
FIRST = re.compile(rf"{LETTER}\s*(?:[.:)\]]|[-–—]\s|\n|\Z)|\(?([A-Za-z])\)|\(([A-Za-z])\)")
LETTERS = re.compile(r"(?:[(\[]?[A-Z][)\]]?[.,:;]?\s+)+[(\[]?[A-Z][)\]]?[.,:;]?")
"""Letters and nothing else, as of a list of all options."""

MENTION = re.compile(rf"(?i:\b(?:answer|option|choice)\b)\s*{LETTER}(?!\s*\?)")
"""An option that is named; what is said of it may be that it is wrong."""


def exact_match(completion: str, answer: str) -> bool:
    """Compare the answer part of a completion with the right answer, ignoring case, spaces and a final dot.

    The answer part is the content of the last <answer>...</answer>, else of the last \\boxed{...}, else all.
    """
    return _plain(answer_part(completion)) == _plain(str(answer))


def choice_letter(completion: str, answer: str) -> bool:
    """Compare the letter that a completion chooses with the right one.

    The answer part, without markup, is the letter alone, in any case ("B", "(b)"); or it states one ("the
    answer is B", "B is correct"), of which the last counts; or it begins with one ("B. a cat", "b) a cat");
    or it mentions one option ("option B") and no other. A small a or i counts alone and in brackets only, and
    so "the answer is a cat" chooses nothing; nor does "the answer is A or B", a question, or "D.C.".
    """
    letter = _chosen_letter(answer_part(completion))
    return letter is not None and letter == str(answer).strip().strip("()[]{}.: ").upper()


def _chosen_letter(part: str) -> str | None:
    text = unicodedata.normalize("NFKC", part)
    text = MARKUP.sub(lambda match: match[1] or match[2] or "", text).strip()
    if alone := ALONE.match(text):
        return alone[1].upper()
    if statements := [_letter(match) for match in STATEMENT.finditer(text)]:
        return statements[-1]
    if small := SMALL_STATEMENT.search(text):
        return small[1].upper()
    if LETTERS.fullmatch(text):
        letters = set(re.findall("[A-Z]", text))
        return letters.pop() if len(letters) == 1 else None
    if first := FIRST.match(text):
        return _letter(first)
    mentions = list(MENTION.finditer(text))
    letters = {_letter(match) for match in mentions}
    is_bare = any(not re.match(r"[ \t]+[A-Za-z]", text[match.end() :]) for match in mentions)
    return letters.pop() if len(letters) == 1 and is_bare else None


def _letter(match: re.Match[str]) -> str:
    """Return the letter that one of a pattern's groups has found."""
    return next(group for group in match.groups() if group is not None).upper()


def math_verify(completion: str, answer: str) -> bool:
    """Compare two mathematical expressions by the package math-verify: 1/2, 0.5 and \\frac{1}{2} are equal.

    Raises:
        ConfigError: When math-verify isn't installed.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ConfigError(f"the rule math_verify needs math-verify: {install_command('rl')}") from error
    gold = parse(answer if "$" in answer or BOXED in answer else f"${answer}$")
    if not gold:
        raise DataError(f"{answer!r} is no mathematical expression", field="answer")
    return bool(verify(gold, parse(completion)))


def answer_part(completion: str) -> str:
    """Return the content of the last <answer>...</answer>, else of the last \\boxed{...}, else all.

    What is thought before a </think> is no answer.
    """
    completion = completion.rpartition("</think>")[2]
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
