"""From what a request says to comparisons, within limits; every dialect reads through this and nothing else.

No string of a request is ever taken for a path or an address: images come out of base64 alone, and texts go
into `Message`s as texts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from basereward.comparison import PLACEHOLDER, ROLES, VIDEO_PLACEHOLDER, Comparison, Message, Part
from basereward.data.rendered_chat import IMAGE, NotSeparableError, Turn
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem

Body = TypeVar("Body")

ANY_SIZE = 2**62
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
"""How addresses of any scheme begin, which base64 has no way to."""


@dataclass
class Call:
    """What a request asks, whatever dialect it came in.

    Args:
        items: What to score, and what is wrong with those that can't be.
        model: Whose rewards; None for the first model's.
        keeps_going: Whether an item's problem is its own; else it is the whole request's.
        body: The request as its dialect has it.
    """

    items: list[Comparison | Problem]
    model: str | None = None
    keeps_going: bool = False
    body: object = None


class Reader:
    """Makes comparisons of one request, and keeps count of what it may still have.

    Args:
        limits: What is allowed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pixels = limits.request_pixels

    def each(
        self, bodies: Sequence[Body], build: Callable[[Body], Comparison], param: str
    ) -> list[Comparison | Problem]:
        """Return what `build` makes of each, or why it can't.

        Raises:
            Problem: When there are too many.
        """
        if len(bodies) > self.limits.items:
            raise Problem("too_many_items", param)
        found: list[Comparison | Problem] = []
        for number, body in enumerate(bodies):
            try:
                found.append(build(body))
            except Problem as problem:
                found.append(problem.at(f"{param}[{number}]"))
            except NotSeparableError:
                found.append(Problem("response_not_separable", f"{param}[{number}]"))
        return found

    def image(self, encoded: str) -> Image:
        """Return the image of a data URL, or of bare base64.

        Raises:
            Problem: When it is something else, or too large.
        """
        if found := DATA_URL.match(encoded):
            encoded = encoded[found.end() :]
        elif ADDRESS.match(encoded):
            raise Problem("image_url_not_allowed")
        try:
            image = Image(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
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
            Problem: Saying what is wrong, or over a limit.
        """
        messages = tuple(prompt)
        limits = self.limits
        if not responses:
            raise Problem("response_missing")
        if len(responses) > limits.responses:
            raise Problem("too_many_responses", "responses")
        for number, response in enumerate(responses):
            if not response.strip():
                raise Problem("response_empty", f"responses[{number}]")
        texts = [part for message in messages for part in message.content if isinstance(part, str)]
        shown = [part for message in messages for part in message.content if isinstance(part, Image)]
        if not any(text.strip() for text in texts) and not shown and not images:
            raise Problem("prompt_empty")
        if sum(map(len, texts)) + sum(map(len, responses)) > limits.characters:
            raise Problem("too_many_characters")
        if len(images) + len(shown) > limits.images:
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

    def of_turns(self, split: tuple[list[Turn], str], images: Sequence[str] = ()) -> Comparison:
        """Return the comparison of a rendered conversation; what stands for images there takes the images.

        Raises:
            Problem: Saying what is wrong, or over a limit.
        """
        turns, response = split
        # Without images no text of theirs is a place for one, and `comparison` refuses what looks like it.
        texts = [IMAGE.sub(PLACEHOLDER, turn.text) if images else turn.text for turn in turns]
        prompt = [message(turn.role, text) for turn, text in zip(turns, texts, strict=True)]
        return self.comparison(prompt, [response], images)


def message(role: str, *content: Part) -> Message:
    """Return a message of a role that a request names.

    Raises:
        Problem: When there is no such role.
    """
    if role not in ROLES:
        raise Problem("role_unknown")
    return Message(role, content)
