"""Edits of prompts: what an audit takes away of them, and changes of images that may move no order."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from basereward.comparison import Comparison
from basereward.media.image import Image
from basereward.message import Message

if TYPE_CHECKING:
    import PIL.Image

Prompt: TypeAlias = tuple[Message, ...]

PATCHES = 4
"""Patches along each side of an image that is shuffled."""

BLUR = 0.1
"""The blur's radius over the shorter side of the image."""

JPEG_QUALITY = 90
SCALE = 0.9
"""The side of a resized image over that of the image."""


@dataclass(frozen=True)
class PromptEdit:
    """An edit of prompts by a written rule.

    Attributes:
        rule: What it does, for readers.
        apply: From a row's number and all rows, its prompt with less in it; None where the rule leaves it
            as it is.
    """

    rule: str
    apply: Callable[[int, Sequence[Comparison]], Prompt | None]


def has_images(comparison: Comparison) -> bool:
    """Tell whether there is anything to look at."""
    return bool(comparison.images or comparison.videos)


def _without_images(row: int, rows: Sequence[Comparison]) -> Prompt | None:
    return rows[row].without_images().prompt if has_images(rows[row]) else None


def _with_others(row: int, rows: Sequence[Comparison]) -> Prompt | None:
    """Return the prompt with the images of the next row that has others."""
    images = rows[row].images
    for step in range(1, len(rows)) if images else ():
        others = rows[(row + step) % len(rows)].images
        if others and others[0] != images[0]:
            return rows[row].with_images(others).prompt
    return None


def _of_pixels(
    change: Callable[[PIL.Image.Image, random.Random], object],
) -> Callable[[int, Sequence[Comparison]], Prompt | None]:
    """Return the edit that changes each image by its pixels."""

    def apply(row: int, rows: Sequence[Comparison]) -> Prompt | None:
        images = rows[row].images
        if not images:
            return None
        chance = random.Random(row)
        changed = [Image(change(image.open(), chance)) for image in images]
        return rows[row].with_images(changed).prompt

    return apply


def _blurred(image: PIL.Image.Image, chance: random.Random) -> PIL.Image.Image:
    from PIL.ImageFilter import GaussianBlur

    return image.filter(GaussianBlur(BLUR * min(image.size)))


def _shuffled(image: PIL.Image.Image, chance: random.Random) -> PIL.Image.Image:
    """Return an image whose patches lie in an order that is drawn; a rest at its edges stays."""
    width, height = image.width // PATCHES, image.height // PATCHES
    if not (width and height):
        return image
    corners = [(x * width, y * height) for y in range(PATCHES) for x in range(PATCHES)]
    patches = [image.crop((x, y, x + width, y + height)) for x, y in corners]
    chance.shuffle(patches)
    shuffled = image.copy()
    for corner, patch in zip(corners, patches, strict=True):
        shuffled.paste(patch, corner)
    return shuffled


def _without_text(row: int, rows: Sequence[Comparison]) -> Prompt | None:
    comparison = rows[row]
    media = [part for message in comparison.prompt for part in message.content if not isinstance(part, str)]
    return (Message("user", tuple(media)),) if media else None


def _empty(row: int, rows: Sequence[Comparison]) -> Prompt:
    return (Message("user", ("",)),)


ABLATIONS: Mapping[str, PromptEdit] = {
    "image out": PromptEdit("images and videos are taken out", _without_images),
    "another row's image": PromptEdit("the images are those of another row", _with_others),
    "image blurred": PromptEdit(
        f"a Gaussian blur whose radius is {BLUR:g} of the shorter side", _of_pixels(_blurred)
    ),
    "image shuffled": PromptEdit(
        f"{PATCHES} x {PATCHES} patches lie in an order that is drawn", _of_pixels(_shuffled)
    ),
    "prompt out": PromptEdit("all text is taken out of the prompt, its images stay", _without_text),
    "responses alone": PromptEdit("the prompt is empty", _empty),
}
"""What is taken away, each from the whole."""


def _reencoded(image: PIL.Image.Image, chance: random.Random) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _resized(image: PIL.Image.Image, chance: random.Random) -> PIL.Image.Image:
    width, height = (max(1, round(SCALE * side)) for side in image.size)
    return image.resize((width, height))


def _cropped(image: PIL.Image.Image, chance: random.Random) -> PIL.Image.Image:
    if min(image.size) < 2:
        return image
    left, top = chance.randrange(2), chance.randrange(2)
    return image.crop((left, top, left + image.width - 1, top + image.height - 1))


IMAGE_CHANGES: Mapping[str, PromptEdit] = {
    "re-encoding": PromptEdit(
        f"the image is encoded as JPEG of quality {JPEG_QUALITY}", _of_pixels(_reencoded)
    ),
    "resize": PromptEdit(f"the image is resized to {SCALE:.0%} of each side", _of_pixels(_resized)),
    "crop": PromptEdit("one row and one column of pixels is cut off", _of_pixels(_cropped)),
}
"""Changes of images that may move no order."""
