"""Zip archives that are damaged or hostile: each is an error of ours, and costs one row."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as Pillow

from basereward.data import NativeDataset
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.media.zip_archive import read_member


def archive(compression: int = zipfile.ZIP_DEFLATED, name: str = "cat.png") -> bytes:
    image, buffer = io.BytesIO(), io.BytesIO()
    Pillow.effect_noise((40, 40), 50).save(image, "BMP")
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(name, image.getvalue())
    return buffer.getvalue()


def damaged_member(compression: int) -> Callable[[], bytes]:
    def make() -> bytes:
        content = bytearray(archive(compression))
        content[60:90] = b"\xff" * 30
        return bytes(content)

    return make


def of_version_200() -> bytes:
    content = bytearray(archive())
    at = content.rindex(b"PK\x01\x02")
    content[at + 6] = 200  # the version needed to extract
    return bytes(content)


def with_a_name_that_is_not_utf8() -> bytes:
    return archive(name="é.png").replace("é".encode(), b"\xff\xff")


HOSTILE: dict[str, Callable[[], bytes]] = {
    "damaged LZMA": damaged_member(zipfile.ZIP_LZMA),
    "damaged BZIP2": damaged_member(zipfile.ZIP_BZIP2),
    "damaged deflate": damaged_member(zipfile.ZIP_DEFLATED),
    "damaged stored": damaged_member(zipfile.ZIP_STORED),
    "version 200": of_version_200,
    "a name that is not UTF-8": with_a_name_that_is_not_utf8,
    "cut short": lambda: archive()[:-10],
    "no archive": lambda: b"PK",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_cannot_be_read_costs_its_row_and_no_other(tmp_path: Path, name: str) -> None:
    (tmp_path / "images.zip").write_bytes(HOSTILE[name]())
    (tmp_path / "good.zip").write_bytes(archive())
    rows = [
        {"prompt": "<image>?", "images": [f"{file}.zip/cat.png"], "responses": ["a", "b"]}
        for file in ("good", "images", "good")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = []
    for item in NativeDataset(path).read():
        try:
            read.append(item if isinstance(item, DataError) else item.images[0].open().size)
        except DataError as error:
            read.append(error)
    assert [read[0], read[2]] == [(40, 40), (40, 40)]
    assert isinstance(read[1], DataError)
    assert "images.zip" in str(read[1])


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_whose_size_is_a_lie_is_cut_at_the_limit(tmp_path: Path, compression: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("cat.png", bytes(1 << 20))
    content = buffer.getvalue()
    size = (1 << 20).to_bytes(4, "little")
    assert content.count(size) == 2
    path = tmp_path / "images.zip"
    path.write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(DataError):
        read_member(path, "cat.png", 1000)
    assert Image(path / "cat.png").source == path / "cat.png"
