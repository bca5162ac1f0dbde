"""Parse requests into comparisons, within limits; every API builds its comparisons through this.

No string of a request is ever taken for a path or an address: images are decoded from base64 only, and texts
go into `Message`s as texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from basereward.comparison import Comparison
from basereward.data import rendered_chat
from basereward.data.rendered_chat import IMAGE, NotSeparableError, Turn, UnknownTemplateError
from basereward.errors import DataError
from basereward.media.image import Image, decoded_base64
from basereward.message import PLACEHOLDER, ROLES, VIDEO_PLACEHOLDER, Message, Part, json_text
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem

Body = TypeVar("Body")

ANY_SIZE = 2**62
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
"""The beginning of an address of any scheme, which no base64 text has."""


@dataclass(frozen=True)
class ScoringRequest:
    """The comparisons to score of a request, whatever its API.

    Args:
        items: Comparisons, or the problems of those that can't be built.
        model: The name of the model; None for the first one.
        keeps_going: Whether an item's problem leaves the others alone; else it fails the whole request.
        param: The field of the body that holds the items.
    """

    items: list[Comparison | Problem]
    model: str | None = None
    keeps_going: bool = False
    param: str = "items"


class RequestParser:
    """Builds the comparisons of one request, and counts its characters, images and pixels."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pixels = limits.request_pixels
        self._images = limits.request_images
        self._characters = limits.request_characters

    def each(
        self, bodies: Sequence[Body], build: Callable[[Body], Comparison], param: str
    ) -> list[Comparison | Problem]:
        """Return the comparison of each body, or the problem that `build` raises.

        Raises:
            Problem: When there are too many.
        """
        if len(bodies) > self.limits.items:
            raise Problem("too_many_items", param)
        items: list[Comparison | Problem] = []
        for number, body in enumerate(bodies):
            try:
                items.append(build(body))
            except Problem as problem:
                items.append(problem.at(f"{param}[{number}]"))
            except UnknownTemplateError:
                items.append(Problem("prompt_of_unknown_template", f"{param}[{number}]"))
            except NotSeparableError:
                items.append(Problem("response_not_separable", f"{param}[{number}]"))
        return items

    def image(self, encoded: str) -> Image:
        """Return the image of a data URL, or of bare base64.

        Raises:
            Problem: When it is neither, or too large.
        """
        self._images -= 1
        if self._images < 0:
            raise Problem("too_many_images")
        if prefix := DATA_URL.match(encoded):
            encoded = encoded[prefix.end() :]
        elif ADDRESS.match(encoded):
            raise Problem("image_url_not_allowed")
        try:
            image = Image(decoded_base64(encoded, "images"))
        except DataError:
            raise Problem("image_not_base64") from None
        try:
            width, height = image.size(max_pixels=ANY_SIZE)
        except DataError:
            raise Problem("image_not_usable") from None
        self._pixels -= width * height
        if width * height > self.limits.image_pixels or self._pixels < 0:
            raise Problem("too_many_pixels")
        return image

    def comparison(
        self, prompt: Iterable[Message], responses: Sequence[str], images: Sequence[str] = ()
    ) -> Comparison:
        """Return a prompt with responses to it.

        Args:
            prompt: Texts and images.
            responses: Texts.
            images: Encoded images for the `<image>` placeholders of the prompt in their order; without
                placeholders they are put before the first user message's text.

        Raises:
            Problem: When something is missing, empty, misplaced or over a limit.
        """
        messages = tuple(prompt)
        self._count(*(message.text + message.given for message in messages), *responses)
        return self._comparison(messages, responses, images)

    def _count(self, *texts: str) -> None:
        """Count the characters of an item, before anything is done that takes time with their number.

        Raises:
            Problem: When they are too many, or those of the request are.
        """
        num_characters = sum(map(len, texts))
        self._characters -= num_characters
        if num_characters > self.limits.characters or self._characters < 0:
            raise Problem("too_many_characters")

    def _comparison(
        self, messages: tuple[Message, ...], responses: Sequence[str], images: Sequence[str]
    ) -> Comparison:
        limits = self.limits
        if not responses:
            raise Problem("response_missing")
        if sum(1 + len(message.content) for message in messages) > limits.messages:
            raise Problem("too_many_messages")
        if len(responses) > limits.responses:
            raise Problem("too_many_responses", "responses")
        for number, response in enumerate(responses):
            if not response.strip():
                raise Problem("response_empty", f"responses[{number}]")
        texts = [part for message in messages for part in message.content if isinstance(part, str)]
        num_inline = sum(isinstance(part, Image) for message in messages for part in message.content)
        is_empty = not any(text.strip() for text in texts) and not any(message.given for message in messages)
        if is_empty and not num_inline and not images:
            raise Problem("prompt_empty")
        if len(images) + num_inline > limits.images:
            raise Problem("too_many_images")
        num_places = sum(text.count(PLACEHOLDER) for text in texts)
        if any(IMAGE.search(text) or VIDEO_PLACEHOLDER in text for text in texts):
            raise Problem("image_placeholder_without_image")
        if num_places > len(images):
            raise Problem("image_placeholder_without_image")
        if 0 < num_places < len(images):
            raise Problem("image_without_placeholder")
        if images and not num_places and not any(message.role == "user" for message in messages):
            raise Problem("image_without_placeholder")
        return Comparison(messages, responses, images=[self.image(image) for image in images])

    def conversation(self, text: str, images: Sequence[str] = ()) -> Comparison:
        """Return the comparison of a rendered conversation, whose only turn of the assistant is the response.

        Raises:
            NotSeparableError: When the beginning of the response is ambiguous.
            Problem: As of `comparison`.
        """
        self._count(text)
        return self._of_turns(rendered_chat.conversation(text), images)

    def divided(self, text: str, prompt: str, images: Sequence[str] = ()) -> Comparison:
        """Return the comparison of a text of prompt and response, cut where the prompt ends.

        Raises:
            NotSeparableError: When the prompt doesn't end where a response begins.
            Problem: As of `comparison`.
        """
        self._count(text)
        with _image_missed(prompt, images):
            return self._of_turns(rendered_chat.split(text, prompt), images)

    def continued(self, prompt: str, response: str, images: Sequence[str] = ()) -> Comparison:
        """Return the comparison of a rendered prompt and the response to it.

        Raises:
            NotSeparableError: When the prompt doesn't end where a response begins.
            Problem: As of `comparison`.
        """
        self._count(prompt, response)
        with _image_missed(prompt, images):
            return self._of_turns(rendered_chat.continued(prompt, response), images)

    def _of_turns(self, split: tuple[list[Turn], str], images: Sequence[str] = ()) -> Comparison:
        """Return the comparison of a rendered prompt's turns and a response; images replace their tokens."""
        turns, response = split
        # Without images their tokens stay in the text, where `comparison` refuses them.
        texts = [IMAGE.sub(PLACEHOLDER, turn.text) if images else turn.text for turn in turns]
        prompt = tuple(message(turn.role, text) for turn, text in zip(turns, texts, strict=True))
        return self._comparison(prompt, [response], images)


@contextmanager
def _image_missed(prompt: str, images: Sequence[str]) -> Iterator[None]:
    """Say of a prompt of an unknown template that an image is missing, where that is what it lacks."""
    try:
        yield
    except UnknownTemplateError:
        if not images and IMAGE.search(prompt):
            raise Problem("image_placeholder_without_image") from None
        raise


def message(role: str, *content: Part, given: Mapping[str, Any] | None = None) -> Message:
    """Return a message with a role of a request, and what else its chat template is given.

    Raises:
        Problem: When there is no such role.
    """
    if role not in ROLES:
        raise Problem("role_unknown")
    return Message(role, content, json_text(given or {}))
