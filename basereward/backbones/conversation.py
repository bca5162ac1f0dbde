"""One conversation on its way to tokens: rendered whole, and divided into prompt and responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from basereward.backbones.opened_turn import rest_of_turn, turn_asked
from basereward.backbones.template_source import KEEPS_TAIL, SKIPS_PADDING
from basereward.errors import DataError
from basereward.message import Message
from basereward.work_limits import raise_if_cancelled

if TYPE_CHECKING:
    from basereward.backbones.chat_template import Chat

RESPONSE = Message("assistant", ("-",))
"""Stands for a response, whose text is given apart."""


class Delimiters(NamedTuple):
    """Two characters that stand nowhere else in a conversation.

    Args:
        cut: Stands within a text where the tokenizer is kept from joining what is on both sides.
        place: Stands before and after the number of an image or a video, or the name of a response.
    """

    cut: str
    place: str

    def number(self, number: int) -> str:
        """Return the stand-in for the content of a number."""
        return f"{self.place}{number}{self.place}"

    @property
    def response(self) -> str:
        """The stand-in for a response."""
        return f"{self.place}r{self.place}"


class Encoding(NamedTuple):
    """A conversation in tokens.

    Args:
        prompt: The ids of the prompt.
        responses: The ids of each response, whose end token is its last.
        leads: How many of each response's first ids are the prompt's, which is shorter on account of another
            response, with whose beginning the tokenizer joins its end.
    """

    prompt: list[int]
    responses: list[list[int]]
    leads: tuple[int, ...]


class Conversation:
    """One prompt on its way to tokens.

    Args:
        chat: The template and the tokenizer.
        prompt: The messages.
        media: The ids of each image and video, or the text that is tokenized in its place, by the number of
            the content.
        signs: Mark places in texts.
    """

    def __init__(
        self,
        chat: Chat,
        prompt: Sequence[Message],
        media: Mapping[int, list[int] | str],
        signs: Delimiters,
    ) -> None:
        self.chat = chat
        self.prompt = prompt
        self.media = media
        self.signs = signs
        numbers = count()
        self._contents = [_contents_of(message, numbers, joins=chat.marks is None) for message in prompt]
        self._place = re.compile(f"{signs.place}([0-9]+){signs.place}")
        control = chat.control.pattern.pattern
        self._boundary = re.compile(f"{control}|{signs.place}[0-9]+{signs.place}")

    def encoded(self, responses: Sequence[str]) -> Encoding:
        """Return the ids of the prompt and of each response."""
        chat = self.chat
        before, sign, after = self._text(self.signs.response).partition(self.signs.response)
        if not sign or sign in after:
            raise chat.lost(self.prompt)
        end = after if KEEPS_TAIL in chat.template else after.rstrip()
        if (turn := turn_asked()) is not None:
            prompt_ids = self._ids(before if turn == "finished" else self._text(None), "prompt")
            ids = [self._answer_ids(each, number, end) for number, each in enumerate(responses)]
            leads: tuple[int, ...] = (0,) * len(ids)
        else:
            texts = [
                self._text(response, number).removesuffix(after[len(end) :])
                for number, response in enumerate(responses)
            ]
            prompt_ids, ids, leads = self._divided(before, texts)
        if not end:
            ids = [[*each, chat.tokenizer.eos_token_id] for each in ids]
        if SKIPS_PADDING in chat.template:
            ids = [_without_tail(each, chat.tokenizer.pad_token_id) for each in ids]
        return Encoding(prompt_ids, ids, leads)

    def _answer_ids(self, answer: str, number: int, end: str) -> list[int]:
        """Return the ids of an answer by itself, and of its end."""
        if turn_asked() == "opened":
            answer = rest_of_turn(answer, self.chat.opening)
        field = f"responses[{number}]"
        text = self._shielded(answer, number)
        # From a cut on, since it isn't the beginning of a text.
        return self._ids(f"{self.signs.cut}{text}", field) + self._ids(end, field)

    def _divided(self, before: str, texts: Sequence[str]) -> Encoding:
        """Return the ids of the text before responses, and those of each whole text after these.

        What is shared is tokenized once, up to its last control token, where tokenizers divide any text.
        """
        shared = num_shared([before, *texts])
        boundaries = [match for match in self._boundary.finditer(before) if match.end() <= shared]
        head, joint = (before[: boundaries[-1].end()], boundaries[-1].group()) if boundaries else ("", "")
        num_joint = len(self._ids(joint, "prompt"))

        def rest(text: str, field: str) -> list[int]:
            raise_if_cancelled()
            return self._ids(joint + text[len(head) :], field)[num_joint:]

        opening = rest(before, "prompt")
        tails = [rest(text, f"responses[{number}]") for number, text in enumerate(texts)]
        # Every response keeps a token of its own, at which its reward is read.
        natural = [min(num_shared([opening, ids]), len(ids) - 1) for ids in tails]
        length = min(natural)
        return Encoding(
            self._ids(head, "prompt") + opening[:length],
            [ids[length:] for ids in tails],
            tuple(each - length for each in natural),
        )

    def _ids(self, text: str, field: str) -> list[int]:
        """Return the ids of a text with stand-ins of images."""
        ids: list[int] = []
        for at, piece in enumerate(self._place.split(text)):
            media = self.media[int(piece)] if at % 2 else []
            assert isinstance(media, list)
            ids += media if at % 2 else self.chat.control.ids(piece, self.signs.cut, field)
        return ids

    def _shielded(self, text: str, number: int | None) -> str:
        field = "prompt" if number is None else f"responses[{number}]"
        return self.chat.control.shielded(text, self.signs.cut, field)

    def _text(self, response: str | None, number: int | None = None) -> str:
        """Return the template's text of the prompt and a response, or of the turn that is opened for one.

        Raises:
            DataError: When a text becomes a control token together with what is beside it.
        """
        plain = self._rendered(response, number, guards=False)
        texts = filter(is_text, chain(*self._contents))
        if any(map(self.chat.control.may_join, [*texts, response or ""])):
            guarded = self._rendered(response, number, guards=True)
            literals = [self.chat.control.pattern.findall(text) for text in (plain, guarded)]
            if literals[0] != literals[1]:
                token = next(
                    each for each in literals[0] if literals[0].count(each) != literals[1].count(each)
                )
                raise DataError(
                    f"would be read as the control token {token} with what is beside it; remove it",
                    field="prompt" if number is None else f"responses[{number}]",
                )
        return plain

    def _rendered(self, response: str | None, number: int | None, *, guards: bool) -> str:
        """Return the template's text, with a stand-in for each image of which ids are given.

        Args:
            response: The response; None for the turn that is opened for one.
            number: Its number.
            guards: Whether texts are cut from what is beside them, where they might become control tokens.
        """
        chat, signs = self.chat, self.signs

        def part(content: str | int) -> str:
            if isinstance(content, int):
                return signs.number(content)
            text = self._shielded(content, None)
            return _guarded(text, signs.cut) if guards else text

        messages = [
            chat.message(message, [*map(part, run)])
            for message, run in zip(self.prompt, self._contents, strict=True)
        ]
        if response is not None:
            said = self._shielded(response, number)
            said = _guarded(said, signs.cut) if guards and response != signs.response else said
            messages.append(chat.message(RESPONSE, [said]))
        text = self._numbered(chat.render(messages, opens=response is None))
        places = [int(place) for place in self._place.findall(text)]
        if places != sorted(self.media):
            raise chat.lost(self.prompt)

        def filled(match: re.Match[str]) -> str:
            media = self.media[int(match[1])]
            return media if isinstance(media, str) else match.group()

        return self._place.sub(filled, text)

    def _numbered(self, text: str) -> str:
        """Return a text in which stand-ins are in the places of the template's marks, in their order."""
        if self.chat.marks is None:
            return text
        contents = [part for message in self.prompt for part in message.content]
        waiting = {
            mark: iter([number for number, content in enumerate(contents) if isinstance(content, kind)])
            for kind, mark in self.chat.marks.items()
        }
        return self.chat.mark_pattern.sub(
            lambda match: self.signs.number(next(waiting[match.group()], len(contents))), text
        )


def _contents_of(message: Message, numbers: Iterator[int], *, joins: bool) -> list[str | int]:
    """Return the texts of a message, and in the places of images and videos the numbers of the contents.

    Args:
        message: The message.
        numbers: The numbers of contents from its first on.
        joins: Whether texts that follow each other are one, as templates are given them.
    """
    contents: list[str | int] = []
    for content, number in zip(message.content, numbers, strict=False):  # in this order none is lost
        last = contents[-1] if contents else None
        if isinstance(content, str) and isinstance(last, str) and joins:
            contents[-1] = last + content
        else:
            contents.append(content if isinstance(content, str) else number)
    return contents


def _guarded(text: str, cut: str) -> str:
    """Return a text with a cut before and after all but its white space, which templates may trim."""
    stripped = text.strip()
    return text.replace(stripped, f"{cut}{stripped}{cut}", 1) if stripped else text


def _without_tail(ids: list[int], token: int) -> list[int]:
    """Return ids without those of a token at the end, but for the first."""
    length = len(ids)
    while length > 1 and ids[length - 1] == token:
        length -= 1
    return ids[:length]


def num_shared(sequences: Sequence[Any]) -> int:
    """Return the number of first elements that are alike in all sequences, texts or lists."""
    first, last = min(sequences), max(sequences)  # those between share what these two share
    low, high = 0, min(len(first), len(last))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == last[:middle] else (low, middle - 1)
    return low


def is_text(content: object) -> TypeGuard[str]:
    """Tell whether a content is a text."""
    return isinstance(content, str)
