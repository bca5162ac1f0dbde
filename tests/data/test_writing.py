"""Images on their way into a written data set."""

from __future__ import annotations

import zipfile
from pathlib import Path

import tiny

from basereward.data.writing import encoded_of
from basereward.media import Image


def test_an_image_in_a_zip_archive_is_written_as_it_is(tmp_path: Path) -> None:
    tiny.image().save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    assert encoded_of(Image(tmp_path / "images.zip" / "a.png")) == (tmp_path / "a.png").read_bytes()
