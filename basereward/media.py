"""Pictures: where they come from, and how they are opened without trusting them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 32_000_000
"""Pixels that a picture may have before it is refused undecoded; a camera's 24 megapixels fit."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM")
"""Formats the decoder may try. Left out are those that run programs (EPS) or have bad records (WMF, FLI)."""


class Image:
    """One picture, opened only when it is needed.

    Args:
        source: A path, the bytes of an encoded file, a `PIL.Image.Image`, or the mapping with `bytes` and
            `path` that Hugging Face datasets use.

    Raises:
        DataError: When the source is none of these.
    """

    def __init__(self, source: object) -> None:
        if isinstance(source, Image):
            source = source.source
        elif isinstance(source, Mapping):
            source = _from_mapping(source)
        if isinstance(source, str):
            source = Path(source)
        elif isinstance(source, bytearray | memoryview):
            source = bytes(source)
        if not (isinstance(source, Path | bytes) or _is_pil(source)):
            raise DataError(
                f"an image is a path, bytes, a PIL image or a mapping with 'bytes' or 'path', "
                f"not {type(source).__name__}",
                field="images",
            )
        self.source: Path | bytes | Any = source

    def __repr__(self) -> str:
        return f"Image({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.source == other.source or self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def name(self) -> str:
        """The path, or what else tells this picture from others in a message."""
        if isinstance(self.source, Path):
            return str(self.source)
        return f"{len(self.source)} bytes" if isinstance(self.source, bytes) else f"{self.source.size} pixels"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded file, or of mode, size and pixels of a picture in memory."""
        if isinstance(self.source, Path | bytes):
            return hashlib.sha256(self._encoded()).hexdigest()
        header = f"{self.source.mode} {self.source.size} ".encode()
        return hashlib.sha256(header + self.source.tobytes()).hexdigest()

    def open(self, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
        """Decode to RGB, upright by its EXIF note, transparent parts on white.

        Raises:
            DataError: When the file is missing, no picture, cut short, or has more than `max_pixels` pixels.
        """
        import PIL.Image
        import PIL.ImageOps

        if not isinstance(self.source, Path | bytes):
            return _to_rgb(self.source)
        encoded = self._encoded()
        try:
            # The size is checked before a pixel is decoded, so Pillow's own later check never sees a bomb.
            picture = PIL.Image.open(io.BytesIO(encoded), formats=FORMATS)
        except PIL.Image.DecompressionBombError:
            raise DataError(f"{self.name} has more than {max_pixels:,} pixels", field="images") from None
        except Exception as error:
            raise DataError(f"{self.name} is no picture in {', '.join(FORMATS)}", field="images") from error
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(
                f"{self.name} has {width} x {height} pixels; at most {max_pixels:,} are allowed",
                field="images",
            )
        try:
            picture.load()
            return _to_rgb(PIL.ImageOps.exif_transpose(picture))
        except Exception as error:
            raise DataError(f"{self.name} is cut short or damaged", field="images") from error

    def _encoded(self) -> bytes:
        if isinstance(self.source, bytes):
            return self.source
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise DataError(f"can't read {self.name}: {error.strerror or error}", field="images") from error


def _from_mapping(mapping: Mapping[str, object]) -> object:
    unknown = set(mapping) - {"bytes", "path"}
    if unknown or (mapping.get("bytes") is None and mapping.get("path") is None):
        raise DataError(
            f"an image mapping has the keys 'bytes' and 'path', one of them filled; it has {sorted(mapping)}",
            field="images",
        )
    return mapping["bytes"] if mapping.get("bytes") is not None else mapping["path"]


def _is_pil(source: object) -> bool:
    # Asked of the type's module, because importing Pillow here would cost every `--help` its time.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(source).__mro__)


def _to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    import PIL.Image

    if picture.mode == "RGB":
        return picture
    if picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        canvas = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(canvas, rgba).convert("RGB")
    if picture.mode.startswith("I"):
        # Sixteen-bit greys: Pillow's own conversion clips at 255 and leaves a white sheet.
        return picture.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    return picture.convert("RGB")
