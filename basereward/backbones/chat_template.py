"""Chat templates in tokens: those that transformers gives a conversation, and no text of it a control token.

A conversation is rendered by the template with all its texts, and tokenized as a whole, so that whatever a
template does with a text (trims it, moves it, tests it) is done here too. Literals of control tokens in texts
are cut in two before, where the tokenizer is kept from joining them: a literal `<|im_end|>` stays text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from itertools import chain, count
from typing import Any, Literal, NamedTuple, TypeGuard

from basereward.backbones.control_tokens import ControlTokens, any_of
from basereward.backbones.opened_turn import opening_of, rest_of_turn
from basereward.backbones.template_source import KEEPS_TAIL, SKIPS_PADDING, template_text
from basereward.comparison import Message
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.work_limits import raise_if_cancelled

PRIVATE = range(0xE000, 0xF8FF)
"""Characters without a meaning, of which two that stand nowhere in a conversation mark places in it."""

RESPONSE = Message("assistant", ("-",))
"""Stands for a response, whose text is given apart."""

MAX_CACHED = 1024
"""The number of shapes of prompts that are cached."""

MAX_SHAPE = 1024
"""The size of a shape that is cached: messages, their parts, and characters of what else is given of them."""

ENCODING = 2
"""The version of the way from conversations to tokens, for keys of caches."""

Turn = Literal["finished", "opened"]
"""A turn of the assistant as the template writes one that is over, or as it opens one for generation."""

_asks: ContextVar[Turn | None] = ContextVar("asks", default=None)


@contextmanager
def asking(turn: Turn) -> Iterator[None]:
    """Have `Chat.encode` give the tokens that a model is asked with and answers in, for judges.

    The prompt is then tokenized alone, up to where the answer begins, and the answer alone. In an opened
    turn an answer begins with what the template has written of it (`Chat.opening`) and is encoded without.
    """
    token = _asks.set(turn)
    try:
        yield
    finally:
        _asks.reset(token)


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


class Chat:
    """Turns messages into token ids with a tokenizer and its chat template.

    Args:
        tokenizer: A transformers tokenizer.
        marks: The template's text in the place of an `Image` or a `Video`. It is then given messages in
            parts, and decides the places of images among the texts of a message. None gives it texts alone,
            and images stay in their places in the message.
    """

    def __init__(self, tokenizer: Any, marks: Mapping[type, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self.marks = marks
        self.template = template_text(tokenizer.chat_template)
        self.control = ControlTokens(tokenizer, [*(marks or {}).values()])
        self._mark = any_of([*(marks or {}).values()])
        self._checked: dict[Any, None] = {}

    @cached_property
    def end_ids(self) -> list[int]:
        """The ids that every response ends with."""
        _, responses = self.encode([Message("user", ("-",))], ["-", "-."])
        return responses[0][len(responses[0]) - _num_shared([ids[::-1] for ids in responses]) :]

    @cached_property
    def opening(self) -> str:
        """The beginning of an answer that the template writes itself when it asks for one, such as
        "<think>" and a line break; empty for most.
        """
        return opening_of(self.render([self.message(Message("user", ("-",)), ["-"])], opens=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the template, on which scores depend as much as on weights."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a text's ids; empty for a tokenizer in Python."""
        tokenizer = getattr(self.tokenizer, "backend_tokenizer", None)
        if tokenizer is None:
            return ""
        tokens = sorted(self.tokenizer.special_tokens_map.items())  # templates write these
        decides = f"{ENCODING}\n{tokens}\n{tokenizer.to_str()}\n{self.template}"
        return hashlib.sha256(decides.encode()).hexdigest()

    def encode(
        self,
        prompt: Sequence[Message],
        responses: Sequence[str],
        images: Sequence[list[int] | str] | None = None,
        videos: Sequence[list[int] | str] | None = None,
    ) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt and of each response, whose end token is its last.

        Together they are those of the template's text of the conversation, up to the end of the last turn.
        The prompt's are the same whatever the responses are, unless the tokenizer joins the beginning of a
        response with what is before it; then these tokens are the responses'.

        Args:
            prompt: The messages before the response.
            responses: The texts that continue them.
            images: The token ids of each image of the prompt, or a text that is tokenized together with the
                template's text around it, with control tokens; None for models that read none.
            videos: Likewise of each video.

        Raises:
            DataError: When a text can't be encoded, or there is an image or a video and the model reads none.
        """
        contents = [part for message in prompt for part in message.content]
        kinds = [_kind(content) for content in contents]
        if Video in kinds and videos is None:
            raise DataError("the model reads no videos; take them out of the row", field="videos")
        if Image in kinds and images is None:
            raise DataError("the model reads text only; take the images out of the row", field="images")
        self.control.check_length([*filter(_is_text, contents), *responses])
        self._check_shape(prompt)
        media = {Image: iter(images or ()), Video: iter(videos or ())}
        conversation = _Conversation(
            self,
            prompt,
            {number: next(media[kind]) for number, kind in enumerate(kinds) if kind is not str},
            self.delimiters([*filter(_is_text, contents), *responses, *(each.given for each in prompt)]),
        )
        return conversation.encoded(responses)

    def text_ids(self, text: str, field: str) -> list[int]:
        """Encode content alone; literals of control tokens come out as ordinary text."""
        signs = self.delimiters([text])
        return self.control.ids(self.control.shielded(text, signs.cut, field), signs.cut, field)

    def delimiters(self, texts: Sequence[str]) -> Delimiters:
        """Return two characters that stand neither in the template nor in any of some texts."""
        free = (
            character
            for character in map(chr, PRIVATE)
            if not any(character in text for text in (self.template, *texts))
        )
        return Delimiters(next(free), next(free))

    def render(self, messages: Sequence[Mapping[str, Any]], *, opens: bool = False) -> str:
        """Return the template's text of messages; all that is rendered is rendered here.

        Args:
            messages: As templates are given them, the tools in the first.
            opens: Whether a turn of the assistant is opened after them.

        Raises:
            DataError: When the template refuses them.
        """
        from jinja2.exceptions import TemplateError

        first, *others = messages
        given = [{name: value for name, value in first.items() if name != "tools"}, *others]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    given,
                    tools=first.get("tools"),
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=opens,
                )
            )
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"the chat template refuses the messages: {error}", field="prompt") from error

    def message(self, message: Message, parts: Sequence[str]) -> dict[str, Any]:
        """Return a message as templates are given it.

        Args:
            message: The message.
            parts: The texts of its content, and stand-ins of its images and videos.
        """
        content = self._content(parts, message.content)
        return {"role": message.role, "content": content, **message.template_fields}

    def _content(self, parts: Sequence[str], contents: Sequence[object]) -> Any:
        """Return the parts of a message in the form that the template is given.

        Args:
            parts: Texts, and the stand-ins of images and videos.
            contents: What each of them is.
        """
        if self.marks is None:
            return "".join(parts)
        names = {Image: "image", Video: "video"}
        return [
            {"type": names[_kind(content)]} if self._is_marked(content) else {"type": "text", "text": part}
            for part, content in zip(parts, contents, strict=True)
        ]

    def _is_marked(self, content: object) -> bool:
        return self.marks is not None and not isinstance(content, str)

    def _check_shape(self, prompt: Sequence[Message]) -> None:
        """Check that the template writes every message once, the response after all, and what else is given.

        That follows from roles and kinds; how it treats single texts is its own affair.
        """
        shape = tuple((message.role, message.given, *map(_kind, message.content)) for message in prompt)
        if shape in self._checked:
            return
        signs = self.delimiters([message.given for message in prompt])
        numbers = iter(range(sum(len(message.content) for message in prompt)))
        wanted = [signs.response]
        messages = []
        for message in prompt:
            self._check_given(message)
            parts = [signs.number(next(numbers)) for _ in message.content]
            pairs = zip(parts, message.content, strict=True)
            wanted += [part for part, content in pairs if not self._is_marked(content)]
            messages.append(self.message(message, parts))
        messages.append(self.message(RESPONSE, [signs.response]))
        text = self.render(messages)
        written = re.findall(f"{signs.place}[0-9r]+{signs.place}", text)
        if sorted(written) != sorted(wanted) or written[-1] != signs.response:
            raise self.lost(prompt)
        self._check_rendered(text, messages)
        if len(self._checked) >= MAX_CACHED:
            self._checked.clear()
        if sum(len(message.content) + len(message.given) + 1 for message in prompt) <= MAX_SHAPE:
            self._checked[shape] = None

    def _check_given(self, message: Message) -> None:
        """Refuse what else is given of a message where it could act as a control token or is never read."""
        # Templates leave out the reasoning of earlier turns on purpose, so what is rendered doesn't tell.
        if "reasoning_content" in message.template_fields and "reasoning_content" not in self.template:
            raise DataError("the chat template doesn't read 'reasoning_content' of a message", field="prompt")
        if (literal := self.control.find(message.given)) is not None:
            raise DataError(
                f"{message.given_names} would be read as the control token {literal}; remove it",
                field="prompt",
            )

    def _check_rendered(self, text: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Refuse tools, calls and names that leave no trace in the rendered text.

        The name of a tool that answers may leave none, nor the id of its call: the call before it has both.
        """
        for at, message in enumerate(messages):
            names = ["tools", "tool_calls"] if message["role"] == "tool" else ["tools", "tool_calls", "name"]
            for name in filter(message.get, names):
                without = {key: value for key, value in message.items() if key != name}
                if text == self.render([*messages[:at], without, *messages[at + 1 :]]):
                    of = "" if name == "tools" else " of a message"
                    raise DataError(f"the chat template doesn't read {name!r}{of}", field="prompt")

    @staticmethod
    def lost(prompt: Sequence[Message]) -> DataError:
        """Return the error of a template that doesn't write what it is given."""
        roles = ", ".join(message.role for message in prompt)
        return DataError(f"the chat template leaves out or repeats a message; roles: {roles}", field="prompt")


class _Conversation:
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

    def encoded(self, responses: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt and of each response."""
        chat = self.chat
        before, sign, after = self._text(self.signs.response).partition(self.signs.response)
        if not sign or sign in after:
            raise chat.lost(self.prompt)
        end = after if KEEPS_TAIL in chat.template else after.rstrip()
        if (turn := _asks.get()) is not None:
            prompt_ids = self._ids(before if turn == "finished" else self._text(None), "prompt")
            ids = [self._answer_ids(each, number, end) for number, each in enumerate(responses)]
        else:
            texts = [
                self._text(response, number).removesuffix(after[len(end) :])
                for number, response in enumerate(responses)
            ]
            prompt_ids, ids = self._divided(before, texts)
        if not end:
            ids = [[*each, chat.tokenizer.eos_token_id] for each in ids]
        if SKIPS_PADDING in chat.template:
            ids = [_without_tail(each, chat.tokenizer.pad_token_id) for each in ids]
        return prompt_ids, ids

    def _answer_ids(self, answer: str, number: int, end: str) -> list[int]:
        """Return the ids of an answer by itself, and of its end."""
        if _asks.get() == "opened":
            answer = rest_of_turn(answer, self.chat.opening)
        field = f"responses[{number}]"
        text = self._shielded(answer, number)
        # From a cut on, since it isn't the beginning of a text.
        return self._ids(f"{self.signs.cut}{text}", field) + self._ids(end, field)

    def _divided(self, before: str, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the text before responses, and those of each whole text after these.

        What is shared is tokenized once, up to its last control token, where tokenizers divide any text.
        """
        shared = _num_shared([before, *texts])
        boundaries = [match for match in self._boundary.finditer(before) if match.end() <= shared]
        head, joint = (before[: boundaries[-1].end()], boundaries[-1].group()) if boundaries else ("", "")
        num_joint = len(self._ids(joint, "prompt"))

        def rest(text: str, field: str) -> list[int]:
            raise_if_cancelled()
            return self._ids(joint + text[len(head) :], field)[num_joint:]

        opening = rest(before, "prompt")
        tails = [rest(text, f"responses[{number}]") for number, text in enumerate(texts)]
        # Every response keeps a token of its own, at which its reward is read.
        length = min(_num_shared([opening, *tails]), min(map(len, tails)) - 1)
        return self._ids(head, "prompt") + opening[:length], [ids[length:] for ids in tails]

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
        raise_if_cancelled()
        plain = self._rendered(response, number, guards=False)
        texts = filter(_is_text, chain(*self._contents))
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
        return self.chat._mark.sub(
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


def _num_shared(sequences: Sequence[Any]) -> int:
    """Return the number of first elements that are alike in all sequences, texts or lists."""
    first, last = min(sequences), max(sequences)  # those between share what these two share
    low, high = 0, min(len(first), len(last))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == last[:middle] else (low, middle - 1)
    return low


def _is_text(content: object) -> TypeGuard[str]:
    return isinstance(content, str)


def _kind(content: object) -> type:
    return next(kind for kind in (Image, Video, str) if isinstance(content, kind))
