"""Chat templates in tokens: those that transformers gives a conversation, and no text of it a control token.

A conversation is rendered by the template with all its texts, and tokenized as a whole, so that whatever a
template does with a text (trims it, moves it, tests it) is done here too. Literals of control tokens in texts
are cut in two before, where the tokenizer is kept from joining them: a literal `<|im_end|>` stays text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from basereward.backbones.control_tokens import ControlTokens, any_of
from basereward.backbones.conversation import (
    RESPONSE,
    Conversation,
    Delimiters,
    Encoding,
    is_text,
    num_shared,
)
from basereward.backbones.opened_turn import opening_of
from basereward.backbones.template_limits import MAX_SECONDS, watchdog
from basereward.backbones.template_source import template_text
from basereward.errors import DataError, ModelError
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.message import Message
from basereward.work_limits import raise_if_cancelled

PRIVATE = range(0xE000, 0xF8FF)
"""Characters without a meaning, of which two that stand nowhere in a conversation mark places in it."""

MAX_CACHED = 1024
"""The number of shapes of prompts that are cached."""

MAX_SHAPE = 1024
"""The size of a shape that is cached: messages, their parts, and characters of what else is given of them."""


MAX_CHARACTERS = 1 << 20
MAX_GROWTH = 20
"""Characters that a template may write, or else how many for each that it is given."""


class TemplateFault(DataError):
    """A failure of a chat template itself, rather than its refusal of the messages."""


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
        self.control = ControlTokens(tokenizer, [*(marks or {}).values()], self._written())
        self.mark_pattern = any_of([*(marks or {}).values()])
        self._checked: dict[Any, None] = {}

    @cached_property
    def end_ids(self) -> list[int]:
        """The ids that every response ends with."""
        _, responses = self.encode([Message("user", ("-",))], ["-", "-."])
        return responses[0][len(responses[0]) - num_shared([ids[::-1] for ids in responses]) :]

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
        decides = f"{tokens}\n{tokenizer.to_str()}\n{self.template}"
        return hashlib.sha256(decides.encode()).hexdigest()

    def encode(
        self,
        prompt: Sequence[Message],
        responses: Sequence[str],
        images: Sequence[list[int] | str] | None = None,
        videos: Sequence[list[int] | str] | None = None,
    ) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt and of each response, as `encoding` has them."""
        prompt_ids, ids, _ = self.encoding(prompt, responses, images, videos)
        return prompt_ids, ids

    def encoding(
        self,
        prompt: Sequence[Message],
        responses: Sequence[str],
        images: Sequence[list[int] | str] | None = None,
        videos: Sequence[list[int] | str] | None = None,
    ) -> Encoding:
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
        self.control.check_length([*filter(is_text, contents), *responses])
        self._check_shape(prompt)
        media = {Image: iter(images or ()), Video: iter(videos or ())}
        conversation = Conversation(
            self,
            prompt,
            {number: next(media[kind]) for number, kind in enumerate(kinds) if kind is not str},
            self.delimiters([*filter(is_text, contents), *responses, *(each.given for each in prompt)]),
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

        raise_if_cancelled()
        first, *others = messages
        given = [{name: value for name, value in first.items() if name != "tools"}, *others]
        try:
            with watchdog.limit(MAX_SECONDS):
                text = str(
                    self.tokenizer.apply_chat_template(
                        given,
                        tools=first.get("tools"),
                        chat_template=self.template,
                        tokenize=False,
                        add_generation_prompt=opens,
                    )
                )
        except TemplateError as error:
            raise DataError(f"the chat template refuses the messages: {error}", field="prompt") from error
        except Exception as error:  # a template is a program, which may fail in any way
            reason = str(error) or type(error).__name__
            text = f"the chat template refuses the messages: {reason}"
            raise TemplateFault(text, field="prompt") from error
        if len(text) > MAX_CHARACTERS and len(text) > MAX_GROWTH * _num_characters(messages):
            raise TemplateFault(f"the chat template writes {len(text):,} characters", field="prompt")
        return text

    def probe(self, model: str) -> None:
        """Render a question and an answer, to find at once a template that can render nothing.

        Raises:
            ModelError: Naming the model.
        """
        try:
            self.render([self.message(Message(role, ("-",)), ["-"]) for role in ("user", "assistant")])
        except TemplateFault as error:
            file = "chat_template.jinja, tokenizer_config.json"
            raise ModelError(f"{model}: {error.reason} ({file})") from error
        except DataError:  # it wants other messages, such as one of the system
            pass

    def message(self, message: Message, parts: Sequence[str]) -> dict[str, Any]:
        """Return a message as templates are given it.

        Args:
            message: The message.
            parts: The texts of its content, and stand-ins of its images and videos.
        """
        content = self._content(parts, message.content)
        return {"role": message.role, "content": content, **message.template_fields}

    def _written(self) -> str:
        """Return what the template writes of a conversation besides its texts, and of an opened turn."""
        asked = self.message(Message("user", ("-",)), ["-"])
        answered = [asked, self.message(RESPONSE, ["-"])]
        text = ""
        for messages, opens in ((answered, False), ([asked], True)):
            with suppress(DataError):  # a template that refuses this conversation
                text += self.render(messages, opens=opens)
        return text

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


def _num_characters(value: Any) -> int:
    """Return how long the texts of nested messages are together."""
    if isinstance(value, Mapping):
        return sum(map(_num_characters, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_num_characters, value))
    return len(value) if isinstance(value, str) else 1


def _kind(content: object) -> type:
    return next(kind for kind in (Image, Video, str) if isinstance(content, kind))
