"""Videos: frames from folders, lists and video files, opened only when they are needed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError, DataError, shown
from basereward.media.image import Image
from basereward.media.limits import MAX_FRAMES, MAX_VIDEO_BYTES, check_file, is_number

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
"""Suffixes of the files in a folder that are its frames."""


class Video:
    """A video as its frames in their order, opened only when they are needed.

    Args:
        source: A folder of frames, in natural order of their names (`frame2` before `frame10`); a sequence of
            images, in its own order; a video file or its bytes, read by PyAV (the extra `video`); or a
            mapping with `video`, any of these, and perhaps `fps`.
        fps: Frames a second of the source, where that is known.

    Raises:
        DataError: When the source is none of these, or has no frame or more than `MAX_FRAMES`.
    """

    def __init__(self, source: object, fps: float | None = None) -> None:
        self.is_sampled: bool = isinstance(source, Video) and source.is_sampled
        """Whether its frames are those that `sampled` chose, so that a backbone reads them all."""
        if isinstance(source, Video):
            fps = source.fps if fps is None else fps
            source = source.source
        elif isinstance(source, Mapping):
            source, fps = _video_of(source, fps)
        if isinstance(source, str):
            source = Path(source)
        elif isinstance(source, Sequence) and not isinstance(source, bytes):
            if not 1 <= len(source) <= MAX_FRAMES:
                raise DataError(
                    f"a video has 1 to {MAX_FRAMES:,} frames, not {len(source):,}", field="videos"
                )
            source = tuple(Image(frame) for frame in source)
        if not isinstance(source, Path | bytes | tuple):
            raise DataError(
                "a video is a folder of frames, a list of images, a video file, or a mapping with 'video', "
                f"not {type(source).__name__}",
                field="videos",
            )
        if fps is not None and (not is_number(fps) or fps <= 0):
            raise DataError(f"fps is a finite number above 0, not {shown(fps)}", field="videos")
        self.source: Path | bytes | tuple[Image, ...] = source
        self.fps: float | None = fps

    def __repr__(self) -> str:
        return f"Video({self.name})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Video) or self.fps != other.fps:
            return False
        return self.source == other.source or self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def name(self) -> str:
        """The path, or else the size, for messages."""
        if isinstance(self.source, Path):
            return str(self.source)
        return f"{len(self.source)} {'bytes' if isinstance(self.source, bytes) else 'frames'}"

    @property
    def is_file(self) -> bool:
        """Whether the frames are to be decoded from a video file."""
        return not isinstance(self.source, tuple) and not (
            isinstance(self.source, Path) and os.path.isdir(self.source)
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the video file, or of its frames' digests in their order."""
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        if isinstance(self.source, Path) and self.is_file:
            check_file(self.source, MAX_VIDEO_BYTES, "videos")
            with self.source.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256("".join(frame.digest for frame in self.frames).encode()).hexdigest()

    @cached_property
    def frames(self) -> tuple[Image, ...]:
        """The frames; of a video file all are decoded, so prefer `sampled` there.

        Raises:
            DataError: When there is none, or more than the limits allow.
            ConfigError: When it is a video file and PyAV is not installed.
        """
        if isinstance(self.source, tuple):
            return self.source
        if isinstance(self.source, Path) and os.path.isdir(self.source):
            return tuple(Image(path) for path in frame_paths(self.source))
        return self._decoded(range).frames

    def sampled(self, num_frames: int) -> Video:
        """Return a video of `num_frames` frames, evenly from the first to the last; all where it has fewer.

        Of a single frame it is the middle one. `fps` follows the larger distances between the frames.

        Raises:
            DataError: When there is no frame, or more than the limits allow.
            ConfigError: When it is a video file and PyAV is not installed.
        """
        if num_frames < 1:
            raise ConfigError(f"num_frames is a number >= 1, not {num_frames}")
        if self.is_file:
            video = self._decoded(lambda total: evenly(total, num_frames))
        else:
            chosen = evenly(len(self.frames), num_frames)
            fps = _slowed(self.fps, len(self.frames), len(chosen))
            video = Video([self.frames[at] for at in chosen], fps)
        video.is_sampled = True
        return video

    def limited(self, max_frames: int) -> Video:
        """Return the video that a backbone reads: of at most `max_frames`, unless its frames were sampled
        before, as those of a benchmark are.

        Raises:
            DataError: As `sampled`.
            ConfigError: Likewise.
        """
        return self if self.is_sampled else self.sampled(max_frames)

    def _decoded(self, choose: Callable[[int], Sequence[int]]) -> Video:
        """Decode the chosen frames of a video file; `choose` turns their number into indices."""
        from basereward.media.video_decoding import decoded

        if isinstance(self.source, Path):
            check_file(self.source, MAX_VIDEO_BYTES, "videos")
        assert not isinstance(self.source, tuple)
        images, total, fps = decoded(self.source, choose, self.name)
        return Video(images, _slowed(self.fps or fps, total, len(images)))


def evenly(total: int, count: int) -> list[int]:
    """Return `count` indices below `total`, the first and the last among them; all where there are fewer."""
    if count >= total:
        return list(range(total))
    if count == 1:
        return [(total - 1) // 2]
    return [number * (total - 1) // (count - 1) for number in range(count)]


def natural(name: str) -> list[tuple[str, int, str]]:
    """Return a key by which names sort with their numbers in order of size: `frame2` before `frame10`."""
    pieces = re.split("([0-9]+)", name)
    return [
        (text, int(digits or 0), digits)
        for text, digits in zip(pieces[::2], [*pieces[1::2], ""], strict=True)
    ]


def frame_paths(folder: Path) -> list[Path]:
    """Return the frames of a folder in natural order of their names; other files are ignored.

    Raises:
        DataError: When there is none, or there are more than `MAX_FRAMES`.
    """
    paths = []
    try:
        for path in folder.iterdir():
            if path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith("."):
                paths.append(path)
                if len(paths) > MAX_FRAMES:
                    raise DataError(
                        f"{folder} has more than the {MAX_FRAMES:,} frames allowed", field="videos"
                    )
    except OSError as error:
        raise DataError(f"can't read {folder}: {error.strerror}", field="videos") from error
    if not paths:
        raise DataError(f"{folder} has no frame named *{', *'.join(FRAME_SUFFIXES)}", field="videos")
    return sorted(paths, key=lambda path: natural(path.name))


def _slowed(fps: float | None, total: int, count: int) -> float | None:
    return fps if fps is None or count < 2 else fps * (count - 1) / (total - 1)


def _video_of(mapping: Mapping[str, object], fps: float | None) -> tuple[object, Any]:
    unknown = set(mapping) - {"video", "fps"}
    if unknown or mapping.get("video") is None:
        raise DataError(
            f"a video mapping has the keys 'video' and perhaps 'fps'; this one has {sorted(mapping)}",
            field="videos",
        )
    return mapping["video"], mapping.get("fps") if fps is None else fps
