"""Images and videos: every kind opens as RGB, and no bad file gets past the door."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image as Pillow

from basereward.errors import DataError
from basereward.media import Image
from basereward.media.limits import MAX_PIXELS


def encoded(image: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes that declares a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_one_image_opens_alike_from_path_bytes_mapping_and_memory(tmp_path: Path) -> None:
    image = Pillow.new("RGB", (3, 2), (10, 20, 30))
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image))
    sources = [path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, image]
    opened = [Image(source).open() for source in sources]
    assert all(found.mode == "RGB" and found.tobytes() == image.tobytes() for found in opened)


def test_transparent_parts_are_white() -> None:
    clear = Pillow.new("RGBA", (1, 1), (200, 0, 0, 0))
    assert Image(encoded(clear)).open().getpixel((0, 0)) == (255, 255, 255)


def test_an_exif_turn_is_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    assert Image(encoded(Pillow.new("RGB", (4, 2)), "JPEG", exif=exif)).open().size == (2, 4)


def test_sixteen_bit_grey_keeps_its_greys() -> None:
    grey = Pillow.new("I;16", (1, 1), 32768)
    assert Image(encoded(grey)).open().getpixel((0, 0)) == (128, 128, 128)


def test_the_digest_tells_sizes_apart() -> None:
    # Twelve zero bytes each: as bytes they are equal, as images they are not.
    images = [Pillow.new("RGB", (4, 1)), Pillow.new("RGB", (2, 2)), Pillow.new("L", (4, 3))]
    assert len({Image(image).digest for image in images}) == 3


BAD = {
    "missing file": (Path("nowhere.png"), "images: can't read nowhere.png: No such file or directory"),
    "no image": (b"hello", "images: 5 bytes is no image in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
    "empty": (b"", "images: 0 bytes is no image in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
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
def test_a_bad_image_is_refused(case: str) -> None:
    source, message = BAD[case]
    with pytest.raises(DataError) as error:
        Image(source).open()
    assert str(error.value) == message


def test_a_truncated_image_is_refused() -> None:
    whole = encoded(Pillow.effect_noise((64, 64), 50).convert("RGB"))
    with pytest.raises(DataError, match="is cut short or damaged$"):
        Image(whole[: len(whole) // 2]).open()


def test_formats_that_run_programs_are_not_tried() -> None:
    with pytest.raises(DataError, match="is no image in"):
        Image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").open()


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
]
MODES += ["I;16", "I;16L", "I;16B"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_opens_as_rgb(mode: str) -> None:
    assert Image(Pillow.new(mode, (2, 2))).open().mode == "RGB"


def test_colours_survive_their_mode() -> None:
    red = Pillow.new("RGB", (1, 1), (255, 0, 0))
    for mode in ("RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV"):
        colour = Image(red.convert(mode)).open().getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(colour, (255, 0, 0), strict=True)) <= 1, mode
    # L* = 128 / 255 * 100 = 50.2 without colour is a grey of 119 to 120 in sRGB.
    grey = Image(Pillow.merge("LAB", [Pillow.new("L", (1, 1), value) for value in (128, 128, 128)])).open()
    assert all(abs(value - 119) <= 2 for value in grey.getpixel((0, 0)))


def test_greys_of_floats_are_shares_or_bytes() -> None:
    shares, values = Pillow.new("F", (2, 1), 0.5), Pillow.new("F", (2, 1), 100.0)
    assert Image(shares).open().getpixel((0, 0)) == (127, 127, 127)  # 0.5 * 255, cut
    assert Image(values).open().getpixel((0, 0)) == (100, 100, 100)


def test_a_file_that_is_too_large_or_endless_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Pillow.new("RGB", (8, 8))))
    size = path.stat().st_size
    monkeypatch.setattr("basereward.media.image.MAX_BYTES", 10)
    for source, message in (
        (path, f"images: {path} has {size:,} bytes; at most 10 are allowed"),
        (path.read_bytes(), f"images: {size} bytes are more than the 10 allowed"),
        (Path("/dev/zero"), "images: /dev/zero is no regular file"),
        (Path("a\0b"), "images: can't read a\0b: no file has such a name"),
    ):
        with pytest.raises(DataError) as error:
            Image(source).open()
        assert str(error.value) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_whose_pixels_are_not_finite_is_no_black_one(value: float) -> None:
    pixels = Pillow.new("F", (2, 2), 0.5)
    pixels.putpixel((1, 1), value)
    with pytest.raises(DataError):
        Image(encoded(pixels, "TIFF")).open()
    with pytest.raises(DataError):
        Image(pixels).open()
