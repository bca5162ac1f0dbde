"""Chat templates in tokens, built so that no text of a user or a model can act as a control token.

The template is rendered with a stand-in for each piece of content and cut at the stand-ins. Only the
template's own pieces are read with control tokens; content is encoded as plain text, and a literal
`<|im_end|>` in it stays text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from basereward.comparison import Message
from basereward.errors import DataError
from basereward.media import Image, Video

STAND_IN = "\ue000{}\ue001"
"""Marks where content goes; private-use characters that no template writes."""

MAX_KNOWN = 1024
"""How many shapes of prompts, and texts of the template, are remembered."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].title() }}: {{ message['content'] }}\n\n{% endfor %}"
)
"""For tokenizers of base models, which carry no template of their own."""


class Chat:
    """Turns messages into token ids with a tokenizer and its chat template.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template: str = tokenizer.chat_template or PLAIN_TEMPLATE
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        literals = sorted({str(token) for token in special if str(token)}, key=len, reverse=True)
        self._literal = re.compile("|".join(re.escape(literal) for literal in literals)) if literals else None
        self._known_pieces: dict[tuple[tuple[str, int], ...], list[str]] = {}
        self._known_ids: dict[str, list[int]] = {}
        self._control = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}

    @property
    def digest(self) -> str:
        """SHA-256 of the template, which scores depend on as much as on weights."""
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
        images: Sequence[list[int]] | None = None,
        videos: Sequence[list[int]] | None = None,
    ) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt and of each response, whose end token is its last.

        Args:
            prompt: The messages before the response.
            responses: The texts that continue them.
            images: The token ids that stand for each image of the prompt; None for models that read none.
            videos: Likewise of each video.

        Raises:
            DataError: When a text can't be encoded, or there is an image or a video and the model reads none.
        """
        contents = [part for message in prompt for part in message.content]
        pieces = self._render(prompt)
        ids: list[int] = []
        waiting_images, waiting_videos = iter(images or ()), iter(videos or ())
        for number, piece in enumerate(pieces[:-1]):
            ids += self._template_ids(piece)
            if number == len(contents):
                break
            content = contents[number]
            if isinstance(content, Video):
                if videos is None:
                    raise DataError("the model reads no videos; take them out of the row", field="videos")
                ids += next(waiting_videos)
            elif isinstance(content, Image):
                if images is None:
                    raise DataError(
                        "the model reads text only; take the images out of the row", field="images"
                    )
                ids += next(waiting_images)
            else:
                ids += self.text_ids(content, "prompt")
        end = self._template_ids(pieces[-1].rstrip()) or [self.tokenizer.eos_token_id]
        return ids, [
            self.text_ids(response, f"responses[{number}]") + end for number, response in enumerate(responses)
        ]

    def text_ids(self, text: str, field: str) -> list[int]:
        """Encode content; literals of control tokens come out as ordinary text."""
        pieces = [text]
        if self._literal is not None and (found := list(self._literal.finditer(text))):
            # A literal is cut after its first character, which leaves two texts that match no control token.
            cuts = [0, *(match.start() + 1 for match in found), len(text)]
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
        ids = self._known_ids.get(text)
        if ids is None:
            ids = self._ids(text)
            _keep(self._known_ids, text, ids)
        return ids

    def _render(self, prompt: Sequence[Message]) -> list[str]:
        """Return the template's text between the pieces of content; the last piece follows the response.

        The template sees roles and stand-ins only, so prompts that are alike in these share the work.
        """
        shape = tuple((message.role, len(message.content)) for message in prompt)
        pieces = self._known_pieces.get(shape)
        if pieces is None:
            pieces = self._rendered(prompt)
            _keep(self._known_pieces, shape, pieces)
        return pieces

    def _rendered(self, prompt: Sequence[Message]) -> list[str]:
        number = 0
        messages = []
        for message in prompt:
            content = ""
            for _ in message.content:
                content += STAND_IN.format(number)
                number += 1
            messages.append({"role": message.role, "content": content})
        messages.append({"role": "assistant", "content": STAND_IN.format(number)})
        text = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=False
        )
        pieces = re.split(STAND_IN.format("([0-9]+)"), text)
        if [int(found) for found in pieces[1::2]] != list(range(number + 1)):
            raise DataError(
                f"the chat template leaves out or repeats a message; roles: "
                f"{', '.join(message.role for message in prompt)}",
                field="prompt",
            )
        return pieces[0::2]


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    """Remember a value, and forget all others before they are too many."""
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = value
