"""Images from paths, archives, bytes and objects, opened without trust in their content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError
from basereward.media.limits import MAX_BYTES, MAX_PIXELS, check_file
from basereward.media.zip_archive import member_of, read_member

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM")
"""Formats the decoder may try. Left out are those that run programs (EPS) or have bad records (WMF, FLI)."""


class Image:
    """One image, opened only when it is needed.

    Args:
        source: A path, which may lead into an archive (`images.zip/cat.png`); the bytes of an encoded file; a
            `PIL.Image.Image`; or the mapping with `bytes` and `path` that Hugging Face datasets use.

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
        """The path, or else the size, for messages."""
        if isinstance(self.source, Path):
            return str(self.source)
        return f"{len(self.source)} bytes" if isinstance(self.source, bytes) else f"{self.source.size} pixels"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded file; of an image in memory, of its size and the pixels that are shown."""
        if isinstance(self.source, Path | bytes):
            return hashlib.sha256(self.encoded()).hexdigest()
        shown = self.open()  # by which palettes and transparent colours count
        return hashlib.sha256(f"RGB {shown.size} ".encode() + shown.tobytes()).hexdigest()

    def open(self, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
        """Decode to RGB, upright by its EXIF note, transparent parts on white.

        Raises:
            DataError: When the file is missing, no image, cut short, or has more than `max_pixels` pixels.
        """
        import PIL.Image
        import PIL.ImageOps

        if not isinstance(self.source, Path | bytes):
            try:
                return _to_rgb(self.source)
            except Exception as error:
                raise DataError(f"{self.name} can't be shown as RGB", field="images") from error
        image = self._header(max_pixels)
        try:
            image.load()
            return _to_rgb(PIL.ImageOps.exif_transpose(image))
        except Exception as error:
            raise DataError(f"{self.name} is cut short or damaged", field="images") from error

    def size(self, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
        """Return width and height as they are stored, without decoding a pixel.

        Raises:
            DataError: When the file is missing, no image, or has more than `max_pixels` pixels.
        """
        source: Any = self.source
        width, height = source.size if _is_pil(source) else self._header(max_pixels).size
        return int(width), int(height)

    def _header(self, max_pixels: int) -> PIL.Image.Image:
        """Return an encoded image of which no pixel is decoded yet."""
        import PIL.Image

        encoded = self.encoded()
        try:
            # The size is checked before a pixel is decoded, so Pillow's own later check never sees a bomb.
            image = PIL.Image.open(io.BytesIO(encoded), formats=FORMATS)
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise DataError(f"{self.name} has more than {max_pixels:,} pixels", field="images") from None
        except Exception as error:
            raise DataError(f"{self.name} is no image in {', '.join(FORMATS)}", field="images") from error
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{self.name} has {width} x {height} pixels; at most {max_pixels:,} are allowed",
                field="images",
            )
        return image

    def encoded(self) -> bytes:
        """Return the bytes of the encoded file; of an image in memory, as PNG.

        Raises:
            DataError: When the file is missing, no regular file, or larger than `MAX_BYTES`.
        """
        if isinstance(self.source, bytes):
            if len(self.source) > MAX_BYTES:
                raise DataError(f"{self.name} are more than the {MAX_BYTES:,} allowed", field="images")
            return self.source
        if not isinstance(self.source, Path):
            buffer = io.BytesIO()
            self.source.save(buffer, "PNG")
            return buffer.getvalue()
        if (member := member_of(self.source)) is not None:
            try:
                return read_member(*member, MAX_BYTES)
            except DataError as error:
                raise DataError(error.reason, field="images") from error
        check_file(self.source, MAX_BYTES, "images")
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise DataError(f"can't read {self.name}: {error.strerror}", field="images") from error


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


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    import PIL.Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Sixteen-bit greys: Pillow's own conversion clips at 255 and leaves a white sheet.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode == "F":
        # Greys from 0 to 1 or from 0 to 255; which of them is not written anywhere.
        extrema: Any = image.getextrema()
        scale = 255 if extrema[1] <= 1 else 1
        return image.point(lambda value: value * scale + 0).convert("L").convert("RGB")
    if image.mode == "LAB":
        import PIL.ImageCms

        lab, srgb = PIL.ImageCms.createProfile("LAB"), PIL.ImageCms.createProfile("sRGB")
        return PIL.ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        canvas = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")
