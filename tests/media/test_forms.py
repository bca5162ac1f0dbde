"""One image, whatever form its source has: the same pixels by every door that an image comes in."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward import Comparison, DataError
from basereward.data import read_comparisons
from basereward.media import Image
from basereward.serving.limits import Limits
from basereward.serving.request_parser import RequestParser

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(depth: int, colour_type: int, row: bytes, transparent: bytes) -> bytes:
    """Return a PNG file of two pixels with a transparent colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour_type, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def exif(orientation: int) -> bytes:
    noted = Pillow.Exif()
    noted[0x0112] = orientation
    return noted.tobytes()


def spotted(*colours: tuple[int, int, int]) -> Pillow.Image:
    """Return an image of blocks of 16 x 16 pixels beside each other, which even JPEG keeps apart."""
    image = Pillow.new("RGB", (16 * len(colours), 16))
    for at, colour in enumerate(colours):
        image.paste(colour, (16 * at, 0, 16 * at + 16, 16))
    return image


def with_alpha(image: Pillow.Image) -> Pillow.Image:
    """Return an image whose right half is transparent."""
    image.putalpha(255)
    image.paste((9, 9, 9, 0), (image.width // 2, 0, image.width, image.height))
    return image


GREY = (1, 1, 1)
FILES: dict[str, tuple[bytes, list[tuple[int, int, int]]]] = {
    # The bytes of a file, and the colours of its corners: upper left, upper right, lower left, lower right.
    "plain": (saved(spotted(RED, BLUE)), [RED, BLUE, RED, BLUE]),
    # By EXIF's orientation 6 the stored left edge is shown above, by 8 below, by 3 and 2 to the right.
    "png turned 6": (saved(spotted(RED, BLUE), exif=exif(6)), [RED, RED, BLUE, BLUE]),
    "jpeg turned 8": (saved(spotted(RED, BLUE), "JPEG", exif=exif(8), quality=100), [BLUE, BLUE, RED, RED]),
    "webp turned 3": (saved(spotted(RED, BLUE), "WEBP", exif=exif(3), lossless=True), [BLUE, RED] * 2),
    "tiff turned 2": (saved(spotted(RED, BLUE), "TIFF", exif=exif(2)), [BLUE, RED, BLUE, RED]),
    "orientation 9": (saved(spotted(RED, BLUE), exif=exif(9)), [RED, BLUE, RED, BLUE]),
    "png, damaged exif": (saved(spotted(RED, BLUE), exif=b"Exif\0\0garbage"), [RED, BLUE, RED, BLUE]),
    "jpeg, damaged exif": (
        saved(spotted(RED, BLUE), "JPEG", exif=b"Exif\0\0garbage", quality=100),
        [RED, BLUE, RED, BLUE],
    ),
    "webp, damaged exif": (
        saved(spotted(RED, BLUE), "WEBP", exif=b"Exif\0\0garbage", lossless=True),
        [RED, BLUE, RED, BLUE],
    ),
    "alpha": (saved(with_alpha(spotted(RED, BLUE))), [RED, WHITE, RED, WHITE]),
    "alpha, turned 6": (saved(with_alpha(spotted(RED, BLUE)), exif=exif(6)), [RED, RED, WHITE, WHITE]),
    "palette": (saved(spotted(RED, BLUE).convert("P", palette=Pillow.Palette.ADAPTIVE)), [RED, BLUE] * 2),
    "rgb with a transparent colour": (saved(spotted(RED, BLUE), transparency=BLUE), [RED, WHITE] * 2),
    "1 bit grey with one": (png(1, 0, b"\x40", struct.pack(">H", 0)), [WHITE, WHITE] * 2),
    # 2 of 0 to 3 is shown as 2 * 85 = 170, 10 of 0 to 15 as 10 * 17 = 170.
    "2 bit grey with one": (png(2, 0, bytes([0b10_11 << 4]), struct.pack(">H", 2)), [WHITE, WHITE] * 2),
    "4 bit grey with one": (png(4, 0, b"\x0a", struct.pack(">H", 10)), [(0, 0, 0), WHITE] * 2),
    "8 bit grey with one": (png(8, 0, bytes([1, 77]), struct.pack(">H", 77)), [GREY, WHITE] * 2),
    # Of 16 bits the upper byte is shown; 256 and 257 look alike, and only one of them is transparent.
    "16 bit grey with one": (
        png(16, 0, struct.pack(">2H", 256, 257), struct.pack(">H", 257)),
        [GREY, WHITE] * 2,
    ),
    "16 bit grey": (saved(Pillow.fromarray(np.array([[0, 65535]], np.uint16))), [(0, 0, 0), WHITE] * 2),
    "16 bit rgb with one": (
        png(16, 2, struct.pack(">6H", 0, 0, 0, 40000, 1, 65535), struct.pack(">3H", 40000, 1, 65535)),
        [(0, 0, 0), WHITE] * 2,
    ),
}


def by_row(data: bytes, tmp_path: Path, **fields: Any) -> Image:
    """Return the image of a row of JSONL."""
    row = {"prompt": "p", "responses": ["a"], **fields}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    rows = read_comparisons(tmp_path / "rows.jsonl")
    rows.on_bad_row = "fail"
    [comparison] = rows
    [image] = comparison.images
    return image


def by_parquet(data: bytes, tmp_path: Path) -> Image:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"prompt": "p", "responses": ["a"], "images": [{"bytes": data, "path": "elsewhere.png"}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    [comparison] = read_comparisons(tmp_path / "rows.parquet")
    return comparison.images[0]


def by_zip(data: bytes, tmp_path: Path) -> Image:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("cat", data)
    return by_row(data, tmp_path, images=["images.zip/cat"])


def part(**entries: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", **entries}]}]


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes) -> str:
    return f"data:image/png;base64,{text(data)}"


def served(encoded: str) -> Image:
    return RequestParser(Limits()).image(encoded)


def in_memory(data: bytes) -> Pillow.Image:
    image = Pillow.open(io.BytesIO(data))
    image.load()
    return image


FORMS: dict[str, Callable[[bytes, Path], Image]] = {
    "path": lambda data, path: Image(path / "cat"),
    "path as text": lambda data, path: Image(str(path / "cat")),
    "bytes": lambda data, path: Image(data),
    "bytearray": lambda data, path: Image(bytearray(data)),
    "an opened PIL image": lambda data, path: Image(Pillow.open(io.BytesIO(data))),
    "a PIL image of a path": lambda data, path: Image(Pillow.open(path / "cat")),
    "an image of an image": lambda data, path: Image(Image(data)),
    "mapping of bytes": lambda data, path: Image({"bytes": data, "path": None}),
    "mapping of base64": lambda data, path: Image({"bytes": text(data), "path": "elsewhere.png"}),
    "mapping of a path": lambda data, path: Image({"bytes": None, "path": str(path / "cat")}),
    "data URL": lambda data, path: Image(url(data)),
    "row: path": lambda data, path: by_row(data, path, images=["cat"]),
    "row: absolute path": lambda data, path: by_row(data, path, images=[str(path / "cat")]),
    "row: file URL": lambda data, path: by_row(data, path, images=[f"file://{path}/cat"]),
    "row: path in a zip archive": by_zip,
    "row: mapping of a path": lambda data, path: by_row(data, path, images=[{"path": "cat"}]),
    "row: mapping of base64": lambda data, path: by_row(data, path, images=[{"bytes": text(data)}]),
    "row: data URL": lambda data, path: by_row(data, path, images=[url(data)]),
    "row: data URL of another type": lambda data, path: by_row(
        data, path, images=[f"data:;charset=utf-8;base64,{text(data)}"]
    ),
    "row: part with a path": lambda data, path: by_row(data, path, prompt=part(path="cat")),
    "row: part with an image": lambda data, path: by_row(data, path, prompt=part(image="cat")),
    "row: part with a mapping": lambda data, path: by_row(data, path, prompt=part(image={"path": "cat"})),
    "row: part with base64": lambda data, path: by_row(data, path, prompt=part(bytes=text(data))),
    "row: part with a URL": lambda data, path: by_row(data, path, prompt=part(url=url(data))),
    "row: part of OpenAI": lambda data, path: by_row(
        data,
        path,
        prompt=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url(data)}}]}],
    ),
    "Parquet: bytes": by_parquet,
    "request: base64": lambda data, path: served(text(data)),
    "request: data URL": lambda data, path: served(url(data)),
    "encoded once more": lambda data, path: Image(Image(Pillow.open(io.BytesIO(data))).encoded()),
}
"""The forms of a source; those of a row are read from a file as a user has it."""


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_a_source_has_the_same_pixels(name: str, tmp_path: Path) -> None:
    data, corners = FILES[name]
    (tmp_path / "cat").write_bytes(data)
    reference = Image(data).open()
    right, bottom = reference.width - 1, reference.height - 1
    assert [reference.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))] == [
        pytest.approx(corner, abs=3)  # of JPEG; all others are exact
        for corner in corners
    ]
    for form, read in FORMS.items():
        image = read(data, tmp_path).open()
        assert (image.mode, image.size) == ("RGB", reference.size), form
        assert image.tobytes() == reference.tobytes(), form


@pytest.mark.parametrize("name", FILES)
def test_a_decoded_image_in_memory_has_the_pixels_of_its_file(name: str) -> None:
    data, _ = FILES[name]
    if name in ("2 bit grey with one", "4 bit grey with one"):
        pytest.skip("once decoded, Pillow no longer tells how deep the file was")
    assert Image(in_memory(data)).open().tobytes() == Image(data).open().tobytes()


def test_short_base64_is_an_image_where_no_file_has_that_name(tmp_path: Path) -> None:
    for data in (saved(spotted(RED)), saved(spotted(RED), "JPEG"), saved(spotted(RED), "WEBP", quality=1)):
        assert by_row(data, tmp_path, images=[text(data)]).source == data


@given(st.integers(1, 8), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.sampled_from(["RGB", "L", "RGBA"]))
@settings(max_examples=40, deadline=None)
def test_turning_by_exif_is_the_same_for_files_and_for_images_in_memory(
    orientation: int, kind: str, mode: str
) -> None:
    image = spotted(RED, BLUE, WHITE).convert("RGB" if kind == "JPEG" and mode == "RGBA" else mode)
    data = saved(image, kind, exif=exif(orientation))
    shown = Image(data).open()
    assert shown.size == ((48, 16) if orientation <= 4 else (16, 48))
    assert Image(Pillow.open(io.BytesIO(data))).open().tobytes() == shown.tobytes()
    assert Image(in_memory(data)).open().tobytes() == shown.tobytes()


def test_images_in_memory_that_look_different_have_different_digests() -> None:
    palettes = [spotted(colour, WHITE).quantize(2) for colour in (RED, BLUE)]
    assert palettes[0].tobytes() == palettes[1].tobytes()  # the same indices, into other palettes
    turned = in_memory(FILES["png turned 6"][0])
    images = [*palettes, turned, spotted(RED, BLUE)]
    assert len({Image(image).digest for image in images}) == 4
    # Blue that is transparent is shown as white, as in the first palette.
    assert Image(in_memory(FILES["rgb with a transparent colour"][0])).digest == Image(palettes[0]).digest


@pytest.mark.parametrize("mode", ["1", "LA", "P", "CMYK", "HSV", "LAB", "YCbCr", "I", "F", "I;16"])
def test_an_image_in_memory_of_any_mode_is_sent_with_the_pixels_that_it_shows(mode: str) -> None:
    image = Image(Pillow.new(mode, (4, 4)))
    assert Image(image.encoded()).open().tobytes() == image.open().tobytes()


def opened_by_row(directory: Path, fields: dict[str, Any]) -> None:
    (directory / "rows.jsonl").write_text(json.dumps({"prompt": "p", "responses": ["a"], **fields}))
    rows = read_comparisons(directory / "rows.jsonl")
    rows.on_bad_row = "fail"
    [comparison] = rows
    for image in (*comparison.images, *(frame for video in comparison.videos for frame in video.frames)):
        image.open()


@pytest.mark.parametrize(
    "image",
    [
        {"bytes": "{path}"},
        {"bytes": "{path}", "path": None},
        {"bytes": "secret.png"},
        {"bytes": "../set/secret.png", "path": "cat.png"},
        {"bytes": ""},
        {"bytes": ["{path}"]},
        {"bytes": {"path": "{path}"}},
        {"path": {"path": "{path}"}},
        {"path": ["{path}"]},
    ],
)
def test_text_in_bytes_is_base64_and_never_a_path(image: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(saved(spotted(RED)))
    image = json.loads(json.dumps(image).replace("{path}", str(secret)))
    (tmp_path / "set").mkdir()
    for fields in (
        {"images": [image]},
        {"videos": [[image]]},
        {"videos": [{"video": [image], "fps": 1}]},
        {"prompt": part(image=image)},
        {"prompt": part(**image)},
        {"prompt": [{"role": "user", "content": [{"type": "video", "video": [image]}]}]},
    ):
        with pytest.raises(DataError):
            opened_by_row(tmp_path / "set", fields)
    with pytest.raises(DataError):
        Image(image)
    with pytest.raises(DataError):
        Comparison([{"role": "user", "content": [{"type": "image", **image}]}], ["a"])
