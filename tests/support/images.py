"""Images for tests: some rectangles in colours, as many different ones as there are seeds."""

from __future__ import annotations

import io
import random
from typing import Any

import PIL.Image
import PIL.ImageDraw


def drawing(seed: int, side: int = 64) -> PIL.Image.Image:
    """Return an image of rectangles in colours."""
    chance = random.Random(seed)
    image = PIL.Image.new("RGB", (side * 2, side), "white")
    draw = PIL.ImageDraw.Draw(image)
    for _ in range(8):
        left, top = chance.randrange(side * 2), chance.randrange(side)
        box = (left, top, left + chance.randrange(8, side), top + chance.randrange(8, side))
        draw.rectangle(box, fill=tuple(chance.randrange(256) for _ in range(3)))
    return image


def encoded(image: PIL.Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
