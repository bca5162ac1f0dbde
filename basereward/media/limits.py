"""How large what is read may be; a module of its own, since help texts name that and no more of images."""

from __future__ import annotations

from typing import Final

MAX_PIXELS: Final = 32_000_000
"""Pixels that an image may have before it is refused undecoded; a camera's 24 megapixels fit."""
