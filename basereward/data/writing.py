"""Comparisons written in our own format: JSONL with its images beside it, or Parquet with them inside."""

from __future__ import annotations

import abc
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.message import PLACEHOLDER, TEMPLATE_KEYS, VIDEO_PLACEHOLDER
from basereward.storage.atomic import check_unused, file_names, replace_directory, replace_file

ROWS_PER_GROUP = 256
BYTES_PER_GROUP = 32 << 20
"""Rows and image bytes that a Parquet writer holds before it writes them."""

MESSAGE_FIELDS = ("role", "content", *(name for name in TEMPLATE_KEYS if name != "tools"))
"""Fields of a message in Parquet, which are texts; calls of tools are JSON text."""

SUFFIX_OF = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}

OWNED_FILE = re.compile(r"(images|videos)/[0-9a-f]{32}(\.[^/]*)?|rejected\.jsonl|report\.json")
"""All that lies in the directory beside a file, and therefore all that may be replaced there."""

Images = Literal["copy", "keep"]


class Writer(abc.ABC):
    """Writes comparisons to a file, which gets its name when all are written.

    Beside `NAME.jsonl` or `NAME.parquet` a directory `NAME-files` takes what belongs to it; until the end it
    is `files_aside`.

    Args:
        path: The file.
        overwrite: Whether an existing file and its directory are replaced.

    Raises:
        ConfigError: When the file exists, or can't be made.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.files = path.with_name(f"{path.name}-files")
        for existing in (path, self.files):
            if existing.exists() and not overwrite:
                raise ConfigError(f"{existing} exists; name another file, or replace it with --overwrite")
        self.num_rows = 0
        # Aside until the end, since what is replaced may be what is read.
        self._stack = ExitStack()
        try:
            check_unused(path)
            self._aside = self._stack.enter_context(replace_file(path))
            self.files_aside = self._stack.enter_context(
                replace_directory(self.files, foreign_files=_foreign_files)
            )
        except OSError as error:
            raise ConfigError(f"{self.files} can't be made: {error.strerror}") from error
        self._stack.callback(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def write(self, comparison: Comparison) -> None:
        """Write one comparison.

        Raises:
            DataError: When one of its images can't be read; nothing of the row is written.
        """
        row: dict[str, Any] = {
            "id": comparison.id,
            "prompt": [
                {
                    "role": message.role,
                    "content": "".join(map(_marked, message.content)),
                    **message.template_fields,
                }
                for message in comparison.prompt
            ],
            "tools": None,
            "images": [self._image(image) for image in comparison.images],
            "videos": [self._video(video) for video in comparison.videos] or None,
            "responses": list(comparison.responses),
            "ranks": None if comparison.ranks is None else list(comparison.ranks),
            "ratings": None if comparison.ratings is None else list(comparison.ratings),
            "weight": comparison.weight,
            "source": comparison.source,
            "meta": dict(comparison.meta),
        }
        row["tools"] = row["prompt"][0].pop("tools", None)
        self._write(row)
        self.num_rows += 1

    @abc.abstractmethod
    def _image(self, image: Image) -> Any: ...

    @abc.abstractmethod
    def _video(self, video: Video) -> Any: ...

    @abc.abstractmethod
    def _write(self, row: dict[str, Any]) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...


class JSONLWriter(Writer):
    """Rows as JSON, a line each; images are files named by their digests, each of them once.

    Args:
        path: The file.
        images: "copy" images into `NAME-files/images`, or "keep" those that are files where they are.
        overwrite: Whether an existing file and its directory are replaced.
    """

    def __init__(self, path: Path, *, images: Images = "copy", overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self.images = images
        self._file = self._aside.open("w", encoding="utf-8")

    def _image(self, image: Image) -> str:
        if self.images == "keep" and isinstance(image.source, Path):
            return Path(os.path.relpath(image.source, self.path.parent)).as_posix()
        encoded = encoded_of(image)
        return self._copied(f"images/{image.digest[:32]}{suffix_of(encoded)}", encoded)

    def _video(self, video: Video) -> dict[str, Any]:
        source: Any
        if not video.is_file:
            source = [self._image(frame) for frame in video.frames]
        elif self.images == "keep" and isinstance(video.source, Path):
            source = Path(os.path.relpath(video.source, self.path.parent)).as_posix()
        else:
            suffix = video.source.suffix if isinstance(video.source, Path) else ""
            source = self._copied(f"videos/{video.digest[:32]}{suffix}", encoded_of(video))
        return {"video": source} if video.fps is None else {"video": source, "fps": video.fps}

    def _copied(self, name: str, encoded: bytes) -> str:
        """Write a file once, and return its path from the JSONL."""
        target = self.files_aside / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(encoded)
        return f"{self.files.name}/{name}"

    def _write(self, row: dict[str, Any]) -> None:
        kept = {name: value for name, value in row.items() if value is not None}
        # What JSON can't hold, such as a date of a Parquet column, is written as its text.
        self._file.write(json.dumps(kept, ensure_ascii=False, default=str) + "\n")

    def _close(self) -> None:
        self._file.close()


class ParquetWriter(Writer):
    """Rows as Parquet, images inside as bytes, `meta` as JSON text."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(path, overwrite=overwrite)
        text, numbers = pa.string(), pa.list_(pa.float64())
        images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))
        self._arrow = pa
        self._schema = pa.schema(
            [
                ("id", text),
                ("prompt", pa.list_(pa.struct([(name, text) for name in MESSAGE_FIELDS]))),
                ("tools", text),
                ("images", images),
                ("videos", pa.list_(pa.struct([("video", images), ("fps", pa.float64())]))),
                ("responses", pa.list_(text)),
                ("ranks", numbers),
                ("ratings", numbers),
                ("weight", pa.float64()),
                ("source", text),
                ("meta", text),
            ]
        )
        self._table = pq.ParquetWriter(self._aside, self._schema)
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0

    def _image(self, image: Image) -> dict[str, Any]:
        encoded = encoded_of(image)
        self._num_bytes += len(encoded)
        return {"bytes": encoded, "path": None}

    def _video(self, video: Video) -> dict[str, Any]:
        if video.is_file:
            raise DataError(
                f"{video.name} is a video file, which no Parquet file takes in; write .jsonl", field="videos"
            )
        return {"video": [self._image(frame) for frame in video.frames], "fps": video.fps}

    def _write(self, row: dict[str, Any]) -> None:
        texts = {"meta": json.dumps(row["meta"], ensure_ascii=False, default=str)}
        if row["tools"] is not None:
            texts["tools"] = json.dumps(row["tools"], ensure_ascii=False)
        prompt = [
            {
                key: value if isinstance(value, str | None) else json.dumps(value)
                for key, value in turn.items()
            }
            for turn in row["prompt"]
        ]
        self._rows.append({**row, **texts, "prompt": prompt})
        if len(self._rows) == ROWS_PER_GROUP or self._num_bytes > BYTES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._table.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._num_bytes = [], 0

    def _close(self) -> None:
        if self._rows:
            self._flush()
        self._table.close()


def open_writer(path: Path, *, images: Images = "copy", overwrite: bool = False) -> Writer:
    """Open a file to write comparisons to, in the format that its name ends in.

    Raises:
        ConfigError: When the name ends in neither .jsonl nor .parquet, or the file exists.
    """
    if path.name.endswith(".jsonl"):
        return JSONLWriter(path, images=images, overwrite=overwrite)
    if path.name.endswith(".parquet"):
        if images == "keep":
            raise ConfigError("images stand inside a Parquet file and can't be kept apart; write .jsonl")
        return ParquetWriter(path, overwrite=overwrite)
    raise ConfigError(f"{path}: the name must end in .jsonl or .parquet")


def rejected_record(error: DataError, *, id: str = "") -> dict[str, Any]:
    """Return how `rejected.jsonl` lists a row."""
    return {"id": id, "file": error.file, "line": error.line, "field": error.field, "reason": error.reason}


def _foreign_files(directory: Path) -> set[str]:
    return {name for name in file_names(directory) if not OWNED_FILE.fullmatch(name)}


def _marked(part: str | Image | Video) -> str:
    if isinstance(part, str):
        return part
    return PLACEHOLDER if isinstance(part, Image) else VIDEO_PLACEHOLDER


def encoded_of(image: Image | Video) -> bytes:
    """Return an image or video as the bytes of a file: its own, or PNG of an image in memory.

    Raises:
        DataError: When the file can't be read.
    """
    if isinstance(image, Image):  # which may be a member of a zip archive
        return image.encoded()
    if isinstance(image.source, bytes):
        return image.source
    if isinstance(image.source, Path):
        try:
            return image.source.read_bytes()
        except OSError as error:
            raise DataError(f"can't read {image.name}: {error.strerror or error}") from error
    raise TypeError("frames have no file of their own")


def suffix_of(encoded: bytes) -> str:
    """Return how the name of an image's file ends, or nothing where its format is another."""
    return next((suffix for magic, suffix in SUFFIX_OF.items() if encoded.startswith(magic)), "")
