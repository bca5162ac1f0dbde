"""Images from paths, archives, bytes and objects, opened without trust in their content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError
from basereward.media.header import HeaderReader, has_many_notes
from basereward.media.limits import MAX_BYTES, MAX_PIXELS, check_file
from basereward.media.pixels import pixels_of
from basereward.media.zip_archive import member_of, read_member
from basereward.work_limits import raise_if_cancelled

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM")
"""Formats the decoder may try. Left out are those that run programs (EPS) or have bad records (WMF, FLI)."""

BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
"""The beginnings of PNG, JPEG, GIF, WEBP and TIFF files in base64."""

MIN_BASE64 = 40
"""Characters of base64 that the smallest image has at least."""


class Image:
    """One image, opened only when it is needed.

    Args:
        source: A path, which may lead into an archive (`images.zip/cat.png`); a `data:` URL; the bytes of an
            encoded file; a `PIL.Image.Image`; or the mapping with `bytes` and `path` that Hugging Face
            datasets use, whose `bytes` may be base64 text.

    Raises:
        DataError: When the source is none of these.
    """

    def __init__(self, source: object) -> None:
        if isinstance(source, Image):
            source = source.source
        elif isinstance(source, Mapping):
            source = _from_mapping(source)
        if isinstance(source, str):
            source = decoded_url(source, "images") if source.startswith("data:") else Path(source)
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
        """SHA-256 of the encoded file, or of size and pixels, as `open` gives them, of an image in memory."""
        if isinstance(self.source, Path | bytes):
            return hashlib.sha256(self.encoded()).hexdigest()
        shown = self.open()
        return hashlib.sha256(f"{shown.size} ".encode() + shown.tobytes()).hexdigest()

    def open(self, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
        """Decode to RGB, upright by its EXIF note, transparent parts on white.

        Raises:
            DataError: When the file is missing, no image, cut short, or has more than `max_pixels` pixels.
        """
        if not isinstance(self.source, Path | bytes):
            _check_size(self.name, self.source.size, max_pixels)
            try:
                return pixels_of(self.source)
            except Exception as error:
                raise DataError(f"{self.name} can't be shown as RGB", field="images") from error
        image = self._header(max_pixels)
        try:
            return pixels_of(image)
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

        raise_if_cancelled()
        encoded = self.encoded()
        if has_many_notes(encoded):
            raise DataError(f"{self.name} has more notes beside its pixels than are read", field="images")
        file = HeaderReader(encoded)
        try:
            # The size is checked before a pixel is decoded, so Pillow's own later check never sees a bomb.
            image = PIL.Image.open(file, formats=FORMATS)
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise DataError(f"{self.name} has more than {max_pixels:,} pixels", field="images") from None
        except Exception as error:
            raise DataError(f"{self.name} is no image in {', '.join(FORMATS)}", field="images") from error
        file.is_header = False
        _check_size(self.name, image.size, max_pixels)
        return image

    def encoded(self) -> bytes:
        """Return the bytes of the encoded file; of an image in memory, PNG of the pixels that `open` gives.

        Raises:
            DataError: When the file is missing, no regular file, or larger than `MAX_BYTES`.
        """
        if isinstance(self.source, bytes):
            if len(self.source) > MAX_BYTES:
                raise DataError(f"{self.name} are more than the {MAX_BYTES:,} allowed", field="images")
            return self.source
        if not isinstance(self.source, Path):
            buffer = io.BytesIO()
            self.open().save(buffer, "PNG")
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


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"{name} has {width} x {height} pixels; at most {max_pixels:,} are allowed", field="images"
        )


def _from_mapping(mapping: Mapping[str, object]) -> object:
    unknown = set(mapping) - {"bytes", "path"}
    if unknown or (mapping.get("bytes") is None and mapping.get("path") is None):
        raise DataError(
            f"an image mapping has the keys 'bytes' and 'path', one of them filled; it has {sorted(mapping)}",
            field="images",
        )
    encoded, path = mapping.get("bytes"), mapping.get("path")
    if isinstance(encoded, str):
        # Never a path: whoever checks the paths of a row looks for them under "path".
        return decoded_base64(encoded, "images")
    if encoded is not None and not isinstance(encoded, bytes | bytearray | memoryview):
        raise DataError(
            f"an image's 'bytes' are bytes or base64 text, not {type(encoded).__name__}", field="images"
        )
    if encoded is None and not isinstance(path, str | Path):
        raise DataError(f"an image's 'path' is a path, not {type(path).__name__}", field="images")
    return path if encoded is None else encoded


def decoded_url(url: str, field: str) -> bytes:
    """Return the bytes that a `data:` URL holds as base64, whatever type it states.

    Raises:
        DataError: When it is not base64, or damaged.
    """
    head, _, body = url.partition(",")
    if not head.endswith(";base64"):
        raise DataError("is a data: URL that is not base64", field=field)
    return decoded_base64(body, field)


def decoded_base64(text: str, field: str) -> bytes:
    """Return the bytes that base64 text stands for.

    Raises:
        DataError: When it is no base64, or empty.
    """
    if not text:
        raise DataError("is empty; leave it out, or give base64 text", field=field)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("holds text that is not base64", field=field) from error


def _is_pil(source: object) -> bool:
    # Asked of the type's module, because importing Pillow here would cost every `--help` its time.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(source).__mro__)


def is_base64_image(text: str) -> bool:
    """Tell whether a text begins as the base64 of an image file does, which few names of files do."""
    return len(text) >= MIN_BASE64 and text.startswith(BASE64_STARTS)


ADDRESS_KEYS = ("url", "detail")
"""Keys of an image's address; `detail` is for the servers of other models."""


def image_source(part: Mapping[str, Any]) -> object:
    """Return the source of a content part of type "image" or "image_url"; None of one that has none.

    Raises:
        DataError: When it has two that differ, other than the bytes of a path, or an address has a key that
            isn't read.
    """
    if part.get("type") == "image_url":
        address = part.get("image_url")
        if not isinstance(address, Mapping):
            return address
        for key, value in address.items():
            if key not in ADDRESS_KEYS and value is not None:
                raise DataError(f"the key {key!r} of 'image_url' is not read; take it out", field="prompt")
        return address.get("url")
    if part.get("type") != "image":
        return None
    given = {key: part[key] for key in ("image", "url", "bytes", "path") if part.get(key) is not None}
    if given.keys() <= {"bytes", "path"}:
        return given or None
    first, *others = given
    if differing := [
        key for key in others if type(given[key]) is not type(given[first]) or given[key] != given[first]
    ]:
        raise DataError(f"an image has one source, not both {first!r} and {differing[0]!r}", field="prompt")
    return given[first]
