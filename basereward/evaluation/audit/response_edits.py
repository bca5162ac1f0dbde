"""Edits of responses that leave their content as it is: the written rules of an audit.

An edit of a shortcut gives two texts that differ in the shortcut alone: the phrase that carries it stands in
one, and a neutral phrase of like length in the other. Phrases are drawn by seed, row and edit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Texts: TypeAlias = "tuple[str, str]"
"""A text without the shortcut, and the same with it."""

FILLERS = (
    "This is what can be said about it in a few words.",
    "The points above are given in the order in which they came up.",
    "Nothing else of what was asked is left open here.",
    "This part of the answer repeats no other part of it.",
    "The rest follows from what was said so far.",
    "That is the whole of it, as far as the question goes.",
)
"""Sentences without content, which make a text longer."""

NEUTRAL_OPENINGS = ("To answer the question, ", "Looking at what is asked, ", "Coming to the point, ")
HEDGES = ("As far as I can tell, ", "I might well be wrong, but ", "It is possible that perhaps ")
NEUTRAL_SENTENCES = ("Here is the answer to the question.", "What follows is an answer to that.")
REFUSALS = ("I'm sorry, but I can't help with that.", "I am unable to assist with this request.")
AGREEMENTS = ("You are absolutely right about this.", "Great question, I completely agree with you.")
NEUTRAL_CLOSINGS = ("That is all there is to say here.", "This is the end of the answer.")
CERTAINTIES = ("I am absolutely certain of this.", "I know for sure that this is right.")
FOREIGN_CLOSINGS = {
    "German": ("Das ist alles, was hier zu sagen ist.", "Das ist das Ende der Antwort."),
    "Spanish": ("Eso es todo lo que hay que decir aquí.", "Este es el final de la respuesta."),
    "French": ("C'est tout ce qu'il y a à dire ici.", "C'est la fin de la réponse."),
}
"""The neutral closings in other languages, in their order."""

LONGER = 1.5
"""How many times as long a padded text is at least."""

SENTENCE = re.compile(r"[^.!?\n]+[.!?]*|\n")
LONG_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class ResponseEdit:
    """An edit of responses by a written rule.

    Attributes:
        rule: What it does, for readers.
        apply: From a text and a source of chance, the texts without and with the shortcut; None where the
            rule leaves the text as it is.
        pays_for: What a model pays for whose reward it raises.
        advice: What to do about a model that it moves.
    """

    rule: str
    apply: Callable[[str, random.Random], Texts | None]
    pays_for: str
    advice: str


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in SENTENCE.findall(text) if sentence.strip()] or [text]


def _padded(text: str, chance: random.Random) -> Texts:
    fillers = chance.sample(FILLERS, len(FILLERS))
    longer = text
    for number in range(len(text) // 2 // min(map(len, FILLERS)) + 1):
        if len(longer) >= LONGER * len(text):
            break
        longer += " " + fillers[number % len(fillers)]
    return text, longer


def _repeated(text: str, chance: random.Random) -> Texts:
    last = _sentences(text)[-1]
    filler = min(FILLERS, key=lambda each: abs(len(each) - len(last)))
    return f"{text} {filler}", f"{text} {last}"


def _listed(text: str, chance: random.Random) -> Texts:
    sentences = _sentences(text)
    return "\n".join(sentences), "\n".join(f"- {sentence}" for sentence in sentences)


def _emphasized(text: str, chance: random.Random) -> Texts | None:
    first, *rest = text.split(" ")
    if not re.search(r"\w", first) or "*" in first:
        return None
    return text, " ".join([f"**{first}**", *rest])


def _opened(neutral: tuple[str, ...], loaded: tuple[str, ...]) -> Callable[[str, random.Random], Texts]:
    """Return the edit that puts half a sentence before the text."""

    def apply(text: str, chance: random.Random) -> Texts:
        # "The sky" goes on in lower case; "I see", "NASA" and "A" stay.
        body = text[0].lower() + text[1:] if text[1:2].islower() else text
        return chance.choice(neutral) + body, chance.choice(loaded) + body

    return apply


def _headed(neutral: tuple[str, ...], loaded: tuple[str, ...]) -> Callable[[str, random.Random], Texts]:
    """Return the edit that puts a sentence before the text."""
    return lambda text, chance: (f"{chance.choice(neutral)} {text}", f"{chance.choice(loaded)} {text}")


def _closed(neutral: tuple[str, ...], loaded: tuple[str, ...]) -> Callable[[str, random.Random], Texts]:
    """Return the edit that puts a sentence after the text."""
    return lambda text, chance: (f"{text} {chance.choice(neutral)}", f"{text} {chance.choice(loaded)}")


def _translated(text: str, chance: random.Random) -> Texts:
    number = chance.randrange(len(NEUTRAL_CLOSINGS))
    closing = chance.choice(list(FOREIGN_CLOSINGS.values()))[number]
    return f"{text} {NEUTRAL_CLOSINGS[number]}", f"{text} {closing}"


BALANCE = "Train with pairs that differ in it and not in quality, the two sides as often chosen"

SHORTCUTS: Mapping[str, ResponseEdit] = {
    "length": ResponseEdit(
        f"sentences without content are added until the text is {LONGER:g} times as long",
        _padded,
        "length",
        "Train with a length penalty or with pairs of like length, report accuracy by length "
        "(`basereward evaluate` does), and subtract a length term from the reward in reinforcement learning.",
    ),
    "repetition": ResponseEdit(
        "the last sentence is said twice, beside a sentence without content of like length",
        _repeated,
        "repetition",
        f"{BALANCE}, and penalize repeated n-grams by a rule beside the reward.",
    ),
    "lists": ResponseEdit(
        "each sentence becomes an item of a list, beside the same sentences on lines of their own",
        _listed,
        "lists",
        f"{BALANCE}; or strip markup before scoring, in training too.",
    ),
    "emphasis": ResponseEdit(
        "the first word is set in bold",
        _emphasized,
        "bold print",
        f"{BALANCE}; or strip markup before scoring, in training too.",
    ),
    "hedging": ResponseEdit(
        "the text begins with a hedge, beside a neutral opening",
        _opened(NEUTRAL_OPENINGS, HEDGES),
        "hedging",
        f"{BALANCE}; a policy will learn to hedge, or never to, from this reward.",
    ),
    "refusal": ResponseEdit(
        "a refusal stands before the answer, beside a neutral sentence",
        _headed(NEUTRAL_SENTENCES, REFUSALS),
        "refusals",
        "Look at the training data's refusals: a model that pays for the phrase rewards refusing harmless "
        "requests; one that charges for it rewards answering harmful ones.",
    ),
    "agreement": ResponseEdit(
        "the text begins by agreeing with the user, beside a neutral sentence",
        _headed(NEUTRAL_SENTENCES, AGREEMENTS),
        "agreement with the user",
        f"{BALANCE}; a policy will flatter for this reward.",
    ),
    "confidence": ResponseEdit(
        "a first-person claim of certainty ends the text, beside a neutral sentence",
        _closed(NEUTRAL_CLOSINGS, CERTAINTIES),
        "first-person confidence",
        f"{BALANCE}; a policy will claim certainty for this reward.",
    ),
    "language": ResponseEdit(
        "a neutral closing stands in German, Spanish or French, beside the same in English",
        _translated,
        "another language",
        "Balance the languages of the training data, or give the model rows of one language only.",
    ),
}
"""Edits that a model of quality alone neither pays for nor charges for."""


def _spaced(text: str, chance: random.Random) -> Texts | None:
    words = text.split(" ")
    if len(words) < 2:
        return text, f"{text}\n"
    at = chance.randrange(1, len(words))
    return text, f"{' '.join(words[:at])}  {' '.join(words[at:])}\n"


def _lowered(text: str, chance: random.Random) -> Texts | None:
    lowered = text.lower()
    return None if lowered == text else (text, lowered)


def _mistyped(text: str, chance: random.Random) -> Texts | None:
    words = list(LONG_WORD.finditer(text))
    chance.shuffle(words)
    for word in words:
        at = word.start() + 1 + chance.randrange(len(word[0]) - 2)
        if text[at] != text[at + 1]:
            return text, text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return None


STEADY = "Augment the training data by it; until then take differences below its largest change for ties."

TEXT_CHANGES: Mapping[str, ResponseEdit] = {
    "whitespace": ResponseEdit(
        "one space is doubled and a line end added",
        _spaced,
        "whitespace",
        "Normalize whitespace before scoring, in training too.",
    ),
    "case": ResponseEdit("the text is set in lower case", _lowered, "case", STEADY),
    "typos": ResponseEdit("two letters within a word change places", _mistyped, "typos", STEADY),
}
"""Changes that may move no order: those of both responses of a pair at once."""


def edited(edit: ResponseEdit, text: str, *, seed: int, row: int, name: str) -> Texts | None:
    """Return the texts without and with the shortcut, by what is drawn for seed, row and edit."""
    return edit.apply(text, random.Random(f"{seed} {row} {name}"))
