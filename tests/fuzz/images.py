"""Encoded images: size and pixels."""

from __future__ import annotations

import io
import warnings

import PIL.Image

from basereward.errors import BaseRewardError
from basereward.media.image import FORMATS, Image

MAX_PIXELS = 1 << 20


def encoded(format: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a small image in a format."""
    buffer = io.BytesIO()
    PIL.Image.new(mode, (9, 7)).save(buffer, format, **options)
    return buffer.getvalue()


SEEDS = [encoded(format) for format in FORMATS]
SEEDS += [encoded("TIFF", mode) for mode in ("F", "I", "I;16", "L", "CMYK", "LAB", "1")]
SEEDS += [encoded("TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]
SEEDS += [encoded("PNG", mode) for mode in ("P", "LA", "RGBA", "I;16")]
TOKENS = [b"\x00\x00\xc0\x7f", b"\xff\xff\xff\xff", b"IHDR", b"acTL", b"II*\x00", b"Exif\x00\x00"]


def check(data: bytes) -> None:
    """Open an image of these bytes."""
    image = Image(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image.size(max_pixels=MAX_PIXELS)
            image.open(max_pixels=MAX_PIXELS)
        except BaseRewardError:
            pass
