"""Zip archives: their table of contents, and their members."""

from __future__ import annotations

import io
import itertools
import tempfile
import zipfile
from pathlib import Path

from basereward.data.media_paths import Media
from basereward.errors import BaseRewardError
from basereward.media.image import Image

NAMES = ("cat.png", "images/cat.png", "é.png")


def archive(compression: int) -> bytes:
    """Return an archive with a member of each name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name in NAMES:
            file.writestr(name, b"content" * 50)
    return buffer.getvalue()


SEEDS = [
    archive(kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]
TOKENS = [
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"\xff\xff\xff\xff",
    b"\x01\x00\x10\x00",
]
DIRECTORY = Path(tempfile.mkdtemp(prefix="basereward-fuzz-"))
NUMBERS = itertools.count()


def check(data: bytes) -> None:
    """Look members up in an archive of these bytes, and read them."""
    # Another name each time, since archives are kept open.
    path = DIRECTORY / f"{next(NUMBERS)}.zip"
    path.write_bytes(data)
    for name in NAMES:
        try:
            image = Media(DIRECTORY).image(f"{path.name}/{name}", DIRECTORY, "images")
            Image(image).encoded()
        except BaseRewardError:
            pass
    path.unlink()
