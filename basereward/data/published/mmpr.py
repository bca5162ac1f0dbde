"""MMPR: a file that lists many files, each with its own directory of images."""

from __future__ import annotations

import os
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.published.pairs import QuestionDataset
from basereward.data.reading.paths import Split, files_of
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.storage.reading import read_json

META = "meta.json"


class MMPR(QuestionDataset):
    """MMPR v1.2 (arXiv 2411.10442): `OpenGVLab/MMPR-v1.2`, unpacked; its `meta.json` or the directory of it.

    `meta.json` names for each part the JSONL file and the directory that its images' paths start from. Rows
    have `image` (a path, a list of paths, or none), `question`, `chosen`, `rejected`. The part's name becomes
    `meta.part`; `repeat_time` is ignored, since it belongs to the mixture. A single JSONL file is read too.
    """

    name = "mmpr"

    def data_files(self, split: Split, config: str | None) -> list[Path]:
        """Return the files that `meta.json` lists, in its order."""
        path = self.path if config is None else self.path / config
        meta = path / META if path.is_dir() else path
        self.parts: dict[Path, tuple[str, str]] = {}
        if meta.suffix != ".json" or not meta.is_file():
            return files_of(path, split=split)
        for part, entry in _entries(meta).items():
            file = _near(meta.parent, entry["annotation"])
            # Whole, since a relative path would be taken to start from the annotation's directory.
            self.parts[file] = (part, os.path.abspath(_near(meta.parent, entry["root"])))
        return list(self.parts)

    def located(self, row: Row, file: Path, line: int) -> Comparison | DataError:
        """Return a row as a comparison, its images' paths starting from the root of its part."""
        if file in self.parts:
            part, root = self.parts[file]
            root = root if self.media_dir is None else str(self.media_dir)
            images = [f"{root}/{image}" if isinstance(image, str) else image for image in row["images"]]
            row = row | {"images": images, "meta": {"part": part}}
        return super().located(row, file, line)


def _entries(meta: Path) -> dict[str, dict[str, str]]:
    try:
        entries = read_json(meta)
        return {
            part: {key: _inside(entry[key]) for key in ("annotation", "root")}
            for part, entry in entries.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            'must be an object of parts, each with "annotation" and "root" within the directory',
            file=str(meta),
        ) from error


def _inside(name: str) -> str:
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(name)
    return name


def _near(directory: Path, name: str) -> Path:
    """Return the file of a path of `meta.json`, which begins with the name of its directory."""
    inside = directory / name.partition("/")[2]
    return inside if "/" in name and inside.exists() else directory / name
