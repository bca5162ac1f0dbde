"""Resolve the images and videos that rows name to files of the data set's directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from basereward.data.download import fetched
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.media.image import Image, decoded_base64, decoded_url, image_source, is_base64_image
from basereward.media.video import Video, frame_paths
from basereward.media.zip_archive import has_member, member_of
from basereward.message import IGNORED_PART_KEYS, PART_KEYS, refuse_unread

MAX_CACHED = 10_000

MAX_NAME = 4096
"""Characters beyond which no system has a path."""


class Media:
    """The directories and hosts that a data set's images and videos may come from.

    Args:
        root: The data set's directory, which they must lie in, links resolved.
        roots: Other directories that they may lie in.
        hosts: Hosts that they may be fetched from, as `images.example.org` or `localhost:8000`.
    """

    def __init__(self, root: Path, *, roots: Iterable[str | Path] = (), hosts: Iterable[str] = ()) -> None:
        self.roots = [os.path.realpath(allowed) for allowed in (root, *roots)]
        self.hosts = frozenset(host.lower() for host in hosts)
        self._directories: dict[str, str] = {}
        self._archives: dict[Path, list[Path]] = {}

    def located(self, row: Row, directory: Path) -> Row:
        """Return a row of our own format with the paths of its images and videos resolved, unopened.

        Args:
            row: The row.
            directory: What relative paths start from.

        Raises:
            DataError: When one is missing, lies outside, or would have to be fetched from elsewhere.
        """
        changes: Row = {}
        for name, find in (("images", self.image), ("videos", self.video)):
            items = row.get(name)
            if isinstance(items, (list, tuple)):  # anything else is for `Comparison` to refuse
                changes[name] = [find(item, directory, f"{name}[{at}]") for at, item in enumerate(items)]
        prompt = row.get("prompt")
        if isinstance(prompt, (list, tuple)):
            changes["prompt"] = [
                self._message(message, directory, f"prompt[{at}]") for at, message in enumerate(prompt)
            ]
        return {**row, **changes} if changes else row

    def image(self, image: Any, directory: Path, field: str) -> Any:
        """Return an image of a row with its path resolved; encoded bytes stay as they are.

        Raises:
            DataError: When there is no such file within the roots. It is opened later, when it is used.
        """
        if isinstance(image, Image):
            image = image.source
        if isinstance(image, dict):
            refuse_unread(image, ("bytes", "path"), (), "an image", field)
        if isinstance(image, dict) and image.get("bytes") is None and isinstance(image.get("path"), str):
            image = image["path"]
        elif isinstance(image, dict) and isinstance(image.get("bytes"), str):
            return decoded_base64(image["bytes"], field)
        if isinstance(image, Path):
            self._check(image, field)
            return image
        if isinstance(image, str):
            return self._file(image, directory, field)
        if image is None:
            raise DataError("is null; leave the image out instead", field=field)
        return image

    def video(self, video: Any, directory: Path, field: str) -> Any:
        """Return a video of a row with its paths resolved, and the links among a folder's frames checked.

        Raises:
            DataError: When there is no such folder or file within the roots.
        """
        if isinstance(video, Video):
            self.video(video.source, directory, field)
            return video
        if isinstance(video, dict):
            return {**video, "video": self.video(video.get("video"), directory, field)}
        if isinstance(video, Path):
            self._check(video, field)
            return video
        if video is None:
            raise DataError("is null; leave the video out instead", field=field)
        if isinstance(video, str):
            path = self._resolved(video, directory)
            if path is None or not os.path.isdir(path):
                return self._file(video, directory, field)
            self._check(path, field)
            for frame in frame_paths(path):
                if frame.is_symlink():
                    self._check(frame, field)
            return path
        if isinstance(video, (list, tuple)):
            return [self.image(frame, directory, f"{field}[{at}]") for at, frame in enumerate(video)]
        return video

    def _message(self, message: Any, directory: Path, field: str) -> Any:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, (list, tuple)):
            return message
        return {**message, "content": [self._part(part, directory, field) for part in content]}

    def _part(self, part: Any, directory: Path, field: str) -> Any:
        if not isinstance(part, dict):
            return part
        if part.get("type") == "video" and part.get("video") is not None:
            return {**part, "video": self.video(part["video"], directory, field)}
        if (source := image_source(part)) is None:
            return part
        refuse_unread(part, ("type", *PART_KEYS[part["type"]]), IGNORED_PART_KEYS, "a content part", field)
        return {"type": "image", "image": self.image(source, directory, field)}

    def _file(self, name: str, directory: Path, field: str) -> Path | bytes:
        if name.startswith("data:"):
            return decoded_url(name, field)
        if "://" in name[:16]:
            if not name.startswith("file://"):
                return fetched(name, self.hosts, field)
            name = unquote(name.removeprefix("file://"))
        if is_base64_image(name) and not (len(name) < MAX_NAME and os.path.lexists(directory / name)):
            return decoded_base64(name, field)
        path = self._resolved(name, directory)
        if path is None:
            raise DataError(
                f"there is no file {directory / name}; images that lie elsewhere: option media_dir",
                field=field,
            )
        if (inside := member_of(path)) is not None:
            self._check(inside[0], field)
            return path
        try:
            mode = path.stat().st_mode
            self._check(path, field)
        except OSError as error:
            raise DataError(f"can't look for {name:.60}: {error.strerror}", field=field) from error
        except ValueError as error:  # a null character, or half of a surrogate pair
            raise DataError(f"no file can have the name {name[:60]!r}", field=field) from error
        if not stat.S_ISREG(mode):
            raise DataError(f"{path} is no regular file", field=field)
        return path

    def _resolved(self, name: str, directory: Path) -> Path | None:
        """Return the path of a file or directory, perhaps in an archive; None if there is none."""
        path = directory / name
        try:
            os.lstat(path)
            return path
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError):
            return path  # for `stat` to say what is wrong with it
        if (inside := member_of(path)) is not None:
            return path if has_member(*inside) else None
        for archive in self._archives_of(directory):
            # An archive's files often begin with its own name, in the rows or in the archive.
            for member in (name, name.removeprefix(f"{archive.stem}/"), f"{archive.stem}/{name}"):
                if has_member(archive, member):
                    return archive / member
        return None

    def _archives_of(self, directory: Path) -> list[Path]:
        if directory not in self._archives:
            self._archives[directory] = sorted(directory.glob("*.zip"))
        return self._archives[directory]

    def _check(self, path: Path, field: str) -> None:
        """Refuse a path that leads out of the roots, by `..`, by a link, or because it is absolute."""
        real = self._real(path)
        if not any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in self.roots):
            raise DataError(
                f"{path} is not in {self.roots[0]}; allow its directory by the option media_roots",
                field=field,
            )

    def _real(self, path: Path) -> str:
        # Directories are resolved once, since that takes a look at each part of a path.
        parent, name = os.path.split(path)
        if name in ("", "..", ".") or os.path.islink(path):
            return os.path.realpath(path)
        real = self._directories.get(parent)
        if real is None:
            if len(self._directories) >= MAX_CACHED:
                self._directories.clear()
            real = self._directories[parent] = os.path.realpath(parent)
        return os.path.join(real, name)
