"""The turn that a chat template opens for an answer, and what it writes of the answer itself.

Templates of models that think first write "<think>" at the end of the prompt, so that what a model writes
then is the rest of its turn. Judges, trainers and rewards all put the two together here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Turn = Literal["finished", "opened"]
"""A turn of the assistant as the template writes one that is over, or as it opens one for generation."""

_turn_asked: ContextVar[Turn | None] = ContextVar("asks", default=None)


@contextmanager
def asking(turn: Turn) -> Iterator[None]:
    """Have `Chat.encode` give the tokens that a model is asked with and answers in, for judges.

    The prompt is then tokenized alone, up to where the answer begins, and the answer alone. In an opened
    turn an answer begins with what the template has written of it (`Chat.opening`) and is encoded without.
    """
    token = _turn_asked.set(turn)
    try:
        yield
    finally:
        _turn_asked.reset(token)


def turn_asked() -> Turn | None:
    """Return the turn in which a judge is asked; None outside of `asking`."""
    return _turn_asked.get()


TAGS = "think|thinking|thought|reasoning"

OPENING = re.compile(rf"<(?:{TAGS})>\s*\Z")
"""The beginning of an answer that a template writes, at the end of the text of a prompt."""

THOUGHT = re.compile(rf"</?(?:{TAGS})>")
"""The beginning or the end of thinking, which texts of an assistant may have."""

CLOSING = re.compile(rf"</({TAGS})>")


def opening_of(prompt: str) -> str:
    """Return the beginning of an answer that stands at the end of a rendered prompt; empty for most."""
    match = OPENING.search(prompt)
    return match.group() if match else ""


def whole_turn(text: str, opening: str | None = None) -> str:
    """Return the whole turn of an assistant who wrote a text, which may be the rest of a turn only.

    Args:
        text: What a model wrote; an empty one stays empty.
        opening: What the template wrote of the turn; None where that isn't known: then an end of thinking
            that was never begun tells.
    """
    if not text.strip():
        return text
    if opening is None:
        closing = CLOSING.search(text)
        opening = f"<{closing[1]}>" if closing and f"<{closing[1]}>" not in text[: closing.start()] else ""
    return text if text.lstrip().startswith(opening.strip()) else opening + text


def rest_of_turn(text: str, opening: str) -> str:
    """Return a turn without what the template writes of it."""
    tag = opening.strip()
    if tag and text.lstrip().startswith(tag):
        return text.lstrip()[len(tag) :].lstrip("\n")
    return text
