"""A comparison on a page (`templates/card.html`): its images, its prompt and its responses."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.errors import DataError
from basereward.reporting.html import data_uri, shortened
from basereward.reporting.tables import Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image

    from basereward.comparison import Comparison
    from basereward.media.image import Image

LONGER_SIDE = 1024  # pixels of an image on a page, which shows it smaller until it is enlarged
MAX_IMAGES = 4


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image within a page.

    Attributes:
        name: The image's file name.
        uri: The image as a data URI; empty for one that can't be opened.
        error: Why it can't be opened.
    """

    name: str
    uri: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A comparison as a page shows it.

    Attributes:
        images: Its first images.
        num_more: Images that are not shown.
        prompt: The text of its prompt.
        table: Its responses, each after its numbers.
        footer: A line below.
    """

    images: Sequence[InlineImage]
    num_more: int
    prompt: str
    table: Table
    footer: str


def card_of(comparison: Comparison, titles: Sequence[str], rows: Sequence[Row], footer: str) -> Card:
    """Return the card of a comparison; the rows are its responses in order, each after its numbers."""
    images = [inline_image(image) for image in comparison.images[:MAX_IMAGES]]
    num_more = len(comparison.images) - len(images)
    table = Table([*titles, "response"], rows, num_labels=len(titles) + 1)
    return Card(images, num_more, prompt_text(comparison), table, footer)


def prompt_text(comparison: Comparison) -> str:
    """Return the texts of a prompt, with roles where there are several turns."""
    turns = [message for message in comparison.prompt if message.text.strip()]
    if len(turns) == 1:
        return turns[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in turns)


def thumbnail(image: Image, size: int) -> PIL.Image.Image | DataError:
    """Return an image whose longer side is `size` pixels, or why it can't be opened."""
    try:
        small = image.open()
    except DataError as error:
        return error
    small = small.copy()
    small.thumbnail((size, size))
    return small


def inline_image(image: Image) -> InlineImage:
    """Return an image as a JPEG of at most `LONGER_SIDE` pixels a side."""
    name = Path(image.name).name
    small = thumbnail(image, LONGER_SIDE)
    if isinstance(small, DataError):
        return InlineImage(name, error=shortened(small.reason))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return InlineImage(name, data_uri(buffer.getvalue(), "image/jpeg"))
