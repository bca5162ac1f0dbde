"""Pictures: every common kind opens as RGB, and no bad file gets past the door."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image as Pillow

from basereward.errors import DataError
from basereward.media import MAX_PIXELS, Image


def encoded(picture: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of a picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes that declares a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_one_picture_opens_alike_from_path_bytes_mapping_and_memory(tmp_path: Path) -> None:
    picture = Pillow.new("RGB", (3, 2), (10, 20, 30))
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    sources = [path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, picture]
    opened = [Image(source).open() for source in sources]
    assert all(found.mode == "RGB" and found.tobytes() == picture.tobytes() for found in opened)


def test_transparent_parts_are_white() -> None:
    clear = Pillow.new("RGBA", (1, 1), (200, 0, 0, 0))
    assert Image(encoded(clear)).open().getpixel((0, 0)) == (255, 255, 255)


def test_an_exif_turn_is_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    assert Image(encoded(Pillow.new("RGB", (4, 2)), "JPEG", exif=exif)).open().size == (2, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "I;16", "RGBA"])
def test_every_mode_opens_as_rgb(mode: str) -> None:
    assert Image(Pillow.new(mode, (2, 2))).open().mode == "RGB"


def test_sixteen_bit_grey_keeps_its_greys() -> None:
    grey = Pillow.new("I;16", (1, 1), 32768)
    assert Image(encoded(grey)).open().getpixel((0, 0)) == (128, 128, 128)


def test_the_digest_tells_size_and_mode_apart() -> None:
    # Twelve zero bytes each: as bytes they are equal, as pictures they are not.
    pictures = [Pillow.new("RGB", (4, 1)), Pillow.new("RGB", (2, 2)), Pillow.new("L", (4, 3))]
    assert len({Image(picture).digest for picture in pictures}) == 3


BAD = {
    "missing file": (Path("nowhere.png"), "images: can't read nowhere.png: No such file or directory"),
    "no picture": (b"hello", "images: 5 bytes is no picture in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
    "empty": (b"", "images: 0 bytes is no picture in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
    "bomb": (
        png_header(30_000, 2_000),
        f"images: {len(png_header(30_000, 2_000))} bytes has 30000 x 2000 pixels; "
        "at most 32,000,000 are allowed",
    ),
    "vast bomb": (
        png_header(60_000, 60_000),
        f"images: {len(png_header(60_000, 60_000))} bytes has more than {MAX_PIXELS:,} pixels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_refused(case: str) -> None:
    source, message = BAD[case]
    with pytest.raises(DataError) as error:
        Image(source).open()
    assert str(error.value) == message


def test_a_truncated_picture_is_refused() -> None:
    whole = encoded(Pillow.effect_noise((64, 64), 50).convert("RGB"))
    with pytest.raises(DataError, match="is cut short or damaged$"):
        Image(whole[: len(whole) // 2]).open()


def test_formats_that_run_programs_are_not_tried() -> None:
    with pytest.raises(DataError, match="is no picture in"):
        Image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").open()
