"""Chat templates in tokens, built so that no text of a user or a model can act as a control token.

The template is rendered with a placeholder for each part of the content and split at the placeholders. Only
the template's own text is tokenized with control tokens; content is encoded as plain text, and a literal
`<|im_end|>` in it stays text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from basereward.comparison import Message
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.media.video import Video

PLACEHOLDER = "\ue000{}\ue001"
"""Marks the place of content; private-use characters that no template writes."""

KEEPS_TAIL = "{#- basereward: rewards are read after all that follows a response -#}"
"""In a chat template, a note that the white space after the end of a turn is read, too: models of other tools
were trained to give their rewards there."""

MAX_CACHED = 1024
"""The number of shapes of prompts, and of texts of the template, that are cached."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].title() }}: {{ message['content'] }}\n\n{% endfor %}"
)
"""For tokenizers of base models, which carry no template of their own."""


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
        places = [PLACEHOLDER.format("[0-9]+"), *map(re.escape, (marks or {}).values())]
        self._places = re.compile(f"({'|'.join(places)})")
        self.template: str = tokenizer.chat_template or PLAIN_TEMPLATE
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        literals = sorted({str(token) for token in special if str(token)}, key=len, reverse=True)
        self._literal = re.compile("|".join(re.escape(literal) for literal in literals)) if literals else None
        self._cached_renderings: dict[Any, tuple[list[str], list[int]]] = {}
        self._cached_ids: dict[str, list[int]] = {}
        self._control = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def end_ids(self) -> list[int]:
        """The ids that every response ends with."""
        _, [response] = self.encode([Message("user", ("-",))], ["-"])
        return response[len(self.text_ids("-", "responses[0]")) :]

    @property
    def digest(self) -> str:
        """SHA-256 of the template, on which scores depend as much as on weights."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of template and tokenizer, which decide a text's ids; empty for a tokenizer in Python."""
        tokenizer = getattr(self.tokenizer, "backend_tokenizer", None)
        if tokenizer is None:
            return ""
        return hashlib.sha256(f"{tokenizer.to_str()}\n{self.template}".encode()).hexdigest()

    def encode(
        self,
        prompt: Sequence[Message],
        responses: Sequence[str],
        images: Sequence[list[int] | str] | None = None,
        videos: Sequence[list[int] | str] | None = None,
    ) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt and of each response, whose end token is its last.

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
        kinds = set(map(_kind, contents))
        if Video in kinds and videos is None:
            raise DataError("the model reads no videos; take them out of the row", field="videos")
        if Image in kinds and images is None:
            raise DataError("the model reads text only; take the images out of the row", field="images")
        pieces, order = self._render(prompt)
        ids: list[int] = []
        unencoded = ""  # text of the template
        waiting = {Image: iter(images or ()), Video: iter(videos or ())}
        for piece, number in zip(pieces[:-1], order, strict=True):
            unencoded += piece
            if number == len(contents):
                break
            content = contents[number]
            if isinstance(content, str):
                ids += self._template_ids(unencoded) + self.text_ids(content, "prompt")
                unencoded = ""
                continue
            replacement = next(waiting[_kind(content)])
            if isinstance(replacement, str):
                unencoded += replacement
            else:
                ids += self._template_ids(unencoded) + replacement
                unencoded = ""
        ids += self._template_ids(unencoded)
        tail = pieces[-1] if KEEPS_TAIL in self.template else pieces[-1].rstrip()
        end = self._template_ids(tail) or [self.tokenizer.eos_token_id]
        return ids, [
            self.text_ids(response, f"responses[{number}]") + end for number, response in enumerate(responses)
        ]

    def text_ids(self, text: str, field: str) -> list[int]:
        """Encode content; literals of control tokens come out as ordinary text."""
        pieces = [text]
        if self._literal is not None and (matches := list(self._literal.finditer(text))):
            # A literal is cut after its first character, which leaves two texts that match no control token.
            cuts = [0, *(match.start() + 1 for match in matches), len(text)]
            pieces = [text[start:stop] for start, stop in pairwise(cuts)]
        try:
            ids = [number for piece in pieces for number in self._ids(piece)]
        except (TypeError, UnicodeError):
            raise DataError("holds a lone surrogate, which is no character; remove it", field=field) from None
        if not self._control.isdisjoint(ids):
            token = self.tokenizer.convert_ids_to_tokens(
                next(number for number in ids if number in self._control)
            )
            raise DataError(f"would be read as the control token {token}; remove it", field=field)
        return ids

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _template_ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self._cached_ids.get(text)
        if ids is None:
            ids = self._ids(text)
            _cache(self._cached_ids, text, ids)
        return ids

    def _render(self, prompt: Sequence[Message]) -> tuple[list[str], list[int]]:
        """Return the template's texts between the parts of content, and the number of the part after each.

        The last part is the response, followed by another text. The template sees only roles, kinds and
        placeholders, so prompts that are alike in these share the rendering.
        """
        shape = tuple((message.role, message.given, *map(_kind, message.content)) for message in prompt)
        rendering = self._cached_renderings.get(shape)
        if rendering is None:
            rendering = self._rendered(prompt)
            _cache(self._cached_renderings, shape, rendering)
        return rendering

    def _rendered(self, prompt: Sequence[Message]) -> tuple[list[str], list[int]]:
        from jinja2.exceptions import TemplateError

        kinds = [_kind(content) for message in prompt for content in message.content]
        numbers = iter(range(len(kinds)))
        messages = [
            {
                "role": message.role,
                "content": self._content([next(numbers) for _ in message.content], kinds),
                **self._given(message),
            }
            for message in prompt
        ]
        tools = messages[0].pop("tools", None)
        messages.append({"role": "assistant", "content": self._content([len(kinds)], [*kinds, str])})
        try:
            text = self._applied(messages, tools)
            self._check_rendered(text, messages, tools)
        except TemplateError as error:
            raise DataError(f"the chat template refuses the messages: {error}", field="prompt") from error
        parts = self._places.split(text)
        order = self._order(parts[1::2], kinds)
        texts = [number for number in order if number == len(kinds) or not self._is_marked(kinds[number])]
        images = [number for number in order if number not in texts]
        if (
            sorted(order) != list(range(len(kinds) + 1))
            or order[-1] != len(kinds)
            or texts != sorted(texts)
            or images != sorted(images)
        ):
            raise DataError(
                f"the chat template leaves out or repeats a message; roles: "
                f"{', '.join(message.role for message in prompt)}",
                field="prompt",
            )
        return parts[0::2], order

    def _applied(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tools=tools,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=False,
            )
        )

    def _given(self, message: Message) -> dict[str, Any]:
        """Return what else the template is given of a message.

        Raises:
            DataError: When a text in it could act as a control token, or the template doesn't read it.
        """
        given = message.template_fields
        # Templates leave out the reasoning of earlier turns on purpose, so what is rendered doesn't tell.
        if "reasoning_content" in given and "reasoning_content" not in self.template:
            raise DataError("the chat template doesn't read 'reasoning_content' of a message", field="prompt")
        if self._literal is not None and (literal := self._literal.search(message.given)):
            raise DataError(
                f"{message.given_names} would be read as the control token {literal.group()}; remove it",
                field="prompt",
            )
        if self._places.search(message.given):
            raise DataError(f"{message.given_names} has private-use characters; remove them", field="prompt")
        return given

    def _check_rendered(self, text: str, messages: Sequence[Mapping[str, Any]], tools: Any) -> None:
        """Refuse tools, calls and names that leave no trace in the rendered text.

        The name of a tool that answers may leave none, nor the id of its call: the call before it has both.
        """
        if tools and text == self._applied(messages, None):
            raise DataError("the chat template doesn't read 'tools'", field="prompt")
        for at, message in enumerate(messages):
            names = ["tool_calls"] if message["role"] == "tool" else ["tool_calls", "name"]
            for name in filter(message.get, names):
                without = {key: value for key, value in message.items() if key != name}
                if text == self._applied([*messages[:at], without, *messages[at + 1 :]], tools):
                    raise DataError(f"the chat template doesn't read {name!r} of a message", field="prompt")

    def _is_marked(self, kind: type) -> bool:
        return self.marks is not None and kind is not str

    def _content(self, numbers: Sequence[int], kinds: Sequence[type]) -> Any:
        """Return contents in the form that the template is given."""
        if self.marks is None:
            return "".join(PLACEHOLDER.format(number) for number in numbers)
        names = {Image: "image", Video: "video"}
        return [
            {"type": names[kinds[number]]}
            if self._is_marked(kinds[number])
            else {"type": "text", "text": PLACEHOLDER.format(number)}
            for number in numbers
        ]

    def _order(self, places: Sequence[str], kinds: Sequence[type]) -> list[int]:
        """Return the numbers of the contents in the order of their places; a mark without a content is -1."""
        marked = {
            mark: iter([number for number, of in enumerate(kinds) if of is kind])
            for kind, mark in (self.marks or {}).items()
        }
        return [next(marked[place], -1) if place in marked else int(place[1:-1]) for place in places]


def _kind(content: object) -> type:
    return next(kind for kind in (Image, Video, str) if isinstance(content, kind))


def _cache(entries: dict[Any, Any], key: object, value: object) -> None:
    """Add a value, and drop all others before they are too many."""
    if len(entries) >= MAX_CACHED:
        entries.clear()
    entries[key] = value
