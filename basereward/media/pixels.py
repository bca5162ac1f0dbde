"""The pixels of an image of any mode: upright, in RGB, transparent parts on white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import PIL.Image

ORIENTATION = 0x0112
"""EXIF's tag that says how an image is turned."""

SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}
"""Factors by which Pillow widens greys of fewer than 8 bits; a transparent grey stays as it was stored."""


def pixels_of(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return an image in RGB, turned upright by its EXIF note, with its transparent parts on white.

    An EXIF note that can't be read turns nothing, as in browsers.
    """
    transparent = _transparent_colour(image)  # before pixels are decoded, which loses their depth
    image.load()
    rgb = _to_rgb(image, transparent)
    turn = _turn_of(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn_of(image: PIL.Image.Image) -> PIL.Image.Transpose | None:
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises nearly anything for what is no EXIF
        return None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _transparent_colour(image: PIL.Image.Image) -> Any:
    """Return the colour, or the palette's alphas, that is transparent, in the range of the decoded pixels."""
    colour = image.info.get("transparency")
    raw_mode = _raw_mode(image)
    if isinstance(colour, int) and raw_mode in SCALES:
        return colour * SCALES[raw_mode]
    if image.mode == "RGB" and isinstance(colour, tuple) and (raw_mode == "RGB;16B" or max(colour) > 255):
        return tuple(value >> 8 for value in colour)
    return colour


def _raw_mode(image: PIL.Image.Image) -> str:
    """Return the mode of a file's pixels as they are stored; nothing once they are decoded."""
    import PIL.ImageFile

    tiles = image.tile if isinstance(image, PIL.ImageFile.ImageFile) else ()
    return str(tiles[0].args) if tiles else ""


def _to_rgb(image: PIL.Image.Image, transparent: Any) -> PIL.Image.Image:
    import PIL.Image

    if image.mode.startswith("I"):
        return _deep_grey(image, transparent)
    if image.mode == "F":
        import numpy

        # Greys from 0 to 1 or from 0 to 255; which of them is not written anywhere.
        if not numpy.isfinite(numpy.asarray(image)).all():
            raise ValueError("pixels that are not finite")
        extrema: Any = image.getextrema()
        scale = 255 if extrema[1] <= 1 else 1
        return image.point(lambda value: value * scale + 0).convert("L").convert("RGB")
    if image.mode == "LAB":
        import PIL.ImageCms

        lab, srgb = PIL.ImageCms.createProfile("LAB"), PIL.ImageCms.createProfile("sRGB")
        return PIL.ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or (
        transparent is not None and image.mode in {"1", "L", "P", "RGB"}
    ):
        if transparent is not image.info.get("transparency"):
            image = image.copy()
            image.info["transparency"] = transparent
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        canvas = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(canvas, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey(image: PIL.Image.Image, transparent: Any) -> PIL.Image.Image:
    """Return sixteen-bit greys by their upper bytes; Pillow's own conversion leaves a white sheet."""
    import numpy as np
    import PIL.Image

    greys = np.asarray(image.convert("I"))  # [height, width]
    shown = np.clip(greys // 256, 0, 255).astype(np.uint8)
    if isinstance(transparent, int):
        shown = np.where(greys == transparent, np.uint8(255), shown)
    return PIL.Image.fromarray(shown).convert("RGB")
