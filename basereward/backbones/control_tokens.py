"""Texts in tokens, none of which is a control token unless the chat template wrote it.

A literal of a control token in a text of a user or a model is cut in two, and the tokenizer is kept from
joining what is on both sides of a cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from basereward.backbones.opened_turn import THOUGHT
from basereward.errors import DataError, TooLongError
from basereward.work_limits import max_tokens, raise_if_cancelled

BATCH = 64
"""Texts that are tokenized in one call; more take longer each."""

PIECE = 16_384
"""Characters of a piece whose tokens are counted apart."""

ALLOWED = 64
"""Tokens of a piece that may be due to its cuts."""


class ControlTokens:
    """Encodes texts with a tokenizer whose control tokens texts must not become.

    Args:
        tokenizer: A transformers tokenizer.
        marks: Other literals that have to stay text, such as a template's mark of an image.
        written: A text of the template alone. Added tokens in it are control tokens even where the tokenizer
            doesn't call them special, as DeepSeek's beginnings of turns; those around thoughts are none.
    """

    def __init__(self, tokenizer: Any, marks: Sequence[str] = (), written: str = "") -> None:
        self.tokenizer = tokenizer
        names = {
            number: str(token)
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special or (str(token) in written and not THOUGHT.fullmatch(str(token)))
        }
        literals = [*filter(None, names.values())]
        self.pattern = any_of(literals)
        """Finds literals of control tokens."""
        self._literal = any_of([*literals, *marks])
        self._beginnings = tuple(literal[:stop] for literal in literals for stop in range(1, len(literal)))
        self._endings = tuple(literal[start:] for literal in literals for start in range(1, len(literal)))
        self._control = set(names)

    def find(self, text: str) -> str | None:
        """Return the first literal in a text."""
        match = self._literal.search(text)
        return match.group() if match else None

    def shielded(self, text: str, cut: str, field: str) -> str:
        """Return a text whose literals are cut in two, by a character that stands for a cut.

        Raises:
            DataError: When one has a single character.
        """
        pieces = []
        begin = 0
        # From a cut on, since no literal is left before it, and the rest may hold one that overlapped.
        while match := self._literal.search(text, begin):
            if len(match.group()) == 1:
                raise DataError(f"would be read as the control token {match.group()}; remove it", field=field)
            pieces.append(text[begin : match.start() + 1])
            begin = match.start() + 1
        return cut.join([*pieces, text[begin:]])

    def may_join(self, text: str) -> bool:
        """Tell whether a text begins or ends as control tokens do, so that it might become one with what a
        template writes beside it.
        """
        text = text.strip()
        return text.endswith(self._beginnings) or text.startswith(self._endings) or text in self._inner

    def ids(self, text: str, cut: str, field: str) -> list[int]:
        """Return the ids of a template's text, in which control tokens count, but none across a cut.

        Raises:
            DataError: When it holds a lone surrogate, or something else becomes a control token.
        """
        first, *others = text.split(cut)
        try:
            ids = self._ids(first)
            for start in range(0, len(others), BATCH):
                raise_if_cancelled()
                for each in self._ids_after(others[start : start + BATCH]):
                    ids += each
        except (TypeError, UnicodeError):
            raise DataError("holds a lone surrogate, which is no character; remove it", field=field) from None
        control = [number for number in ids if number in self._control]
        if len(control) > len(self.pattern.findall(text)):
            token = self.tokenizer.convert_ids_to_tokens(control[-1])
            raise DataError(f"would be read as the control token {token}; remove it", field=field)
        return ids

    @cached_property
    def _inner(self) -> frozenset[str]:
        """The texts within a control token."""
        inner = (ending[:stop] for ending in self._endings for stop in range(1, len(ending)))
        return frozenset(filter(str.strip, inner))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _ids_after(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts that aren't the beginning: some tokenizers put a space before that."""
        different = list(dict.fromkeys(texts))
        line_break, *batch = self.tokenizer(
            ["\n", *(f"\n{text}" for text in different)], add_special_tokens=False
        )["input_ids"]
        length = len(line_break)
        ids_of = {
            text: list(ids[length:]) if ids[:length] == line_break else self._ids(text)
            for text, ids in zip(different, batch, strict=True)
        }
        return [ids_of[text] for text in texts]

    def check_length(self, texts: Sequence[str]) -> None:
        """Refuse texts that have more tokens together than the work's limit, before all are tokenized.

        Pieces are tokenized apart, so their tokens are not exactly those of the whole: a few more at each cut
        are let through. Those that are let through are counted exactly by whoever asks for a limit.

        Raises:
            TooLongError: When they have more.
        """
        limit = max_tokens()
        if limit is None or sum(len(text.encode(errors="replace")) for text in texts) <= limit:
            return  # no token has less than a byte
        num_tokens = 0
        for text in texts:
            for start in range(0, len(text), PIECE):
                raise_if_cancelled()
                piece = text[start : start + PIECE].encode(errors="replace").decode()
                num_tokens += max(0, len(self._ids(piece)) - ALLOWED)
                if num_tokens > limit:
                    raise TooLongError(f"more than {limit:,} tokens", field="prompt")


def any_of(literals: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern of any of some literals, the longest first; of nothing where there are none."""
    longest_first = sorted(set(literals), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
