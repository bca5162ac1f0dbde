"""Images and videos: where they come from, and how they are opened without trusting them."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import ConfigError, DataError
from basereward.media.limits import MAX_PIXELS
from basereward.media.zip_archive import member_of, read_member

if TYPE_CHECKING:
    import PIL.Image

MAX_BYTES = 128 * 2**20
"""Bytes that an image's file may have; the largest that passes `MAX_PIXELS` uncompressed fits."""

MAX_VIDEO_BYTES = 4 * 2**30
"""Bytes that a video file may have; it is read in pieces."""

MAX_FRAMES = 10_000
"""Frames that a folder or a list may have."""

MAX_VIDEO_PIXELS = 512_000_000
"""Pixels of all frames together that are decoded of a video file at once: 1.5 GB in memory."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM")
"""Formats the decoder may try. Left out are those that run programs (EPS) or have bad records (WMF, FLI)."""

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
"""What the frames in a folder are told by."""


class Image:
    """One image, opened only when it is needed.

    Args:
        source: A path, which may lead into an archive (`images.zip/cat.png`); the bytes of an encoded file; a
            `PIL.Image.Image`; or the mapping with `bytes` and `path` that Hugging Face datasets use.

    Raises:
        DataError: When the source is none of these.
    """

    def __init__(self, source: object) -> None:
        if isinstance(source, Image):
            source = source.source
        elif isinstance(source, Mapping):
            source = _from_mapping(source)
        if isinstance(source, str):
            source = Path(source)
        elif isinstance(source, bytearray | memoryview):
            source = bytes(source)
        if not (isinstance(source, Path | bytes) or _is_pil(source)):
            raise DataError(
                f"an image is a path, bytes, a PIL image or a mapping with 'bytes' or 'path', "
                f"not {type(source).__name__}",
                field="images",
            )
        self.source: Path | bytes | Any = source

    def __repr__(self) -> str:
        return f"Image({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.source == other.source or self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def name(self) -> str:
        """The path, or what else tells this image from others in a message."""
        if isinstance(self.source, Path):
            return str(self.source)
        return f"{len(self.source)} bytes" if isinstance(self.source, bytes) else f"{self.source.size} pixels"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded file, or of mode, size and pixels of an image in memory."""
        if isinstance(self.source, Path | bytes):
            return hashlib.sha256(self.encoded()).hexdigest()
        header = f"{self.source.mode} {self.source.size} ".encode()
        return hashlib.sha256(header + self.source.tobytes()).hexdigest()

    def open(self, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
        """Decode to RGB, upright by its EXIF note, transparent parts on white.

        Raises:
            DataError: When the file is missing, no image, cut short, or has more than `max_pixels` pixels.
        """
        import PIL.Image
        import PIL.ImageOps

        if not isinstance(self.source, Path | bytes):
            try:
                return _to_rgb(self.source)
            except Exception as error:
                raise DataError(f"{self.name} can't be shown as RGB", field="images") from error
        image = self._header(max_pixels)
        try:
            image.load()
            return _to_rgb(PIL.ImageOps.exif_transpose(image))
        except Exception as error:
            raise DataError(f"{self.name} is cut short or damaged", field="images") from error

    def size(self, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
        """Return width and height as they are stored, without decoding a pixel.

        Raises:
            DataError: When the file is missing, no image, or has more than `max_pixels` pixels.
        """
        source: Any = self.source
        width, height = source.size if _is_pil(source) else self._header(max_pixels).size
        return int(width), int(height)

    def _header(self, max_pixels: int) -> PIL.Image.Image:
        """Return an encoded image of which no pixel is decoded yet."""
        import PIL.Image

        encoded = self.encoded()
        try:
            # The size is checked before a pixel is decoded, so Pillow's own later check never sees a bomb.
            image = PIL.Image.open(io.BytesIO(encoded), formats=FORMATS)
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise DataError(f"{self.name} has more than {max_pixels:,} pixels", field="images") from None
        except Exception as error:
            raise DataError(f"{self.name} is no image in {', '.join(FORMATS)}", field="images") from error
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{self.name} has {width} x {height} pixels; at most {max_pixels:,} are allowed",
                field="images",
            )
        return image

    def encoded(self) -> bytes:
        """Return the bytes of the encoded file; of an image in memory, as PNG.

        Raises:
            DataError: When the file is missing, no regular file, or larger than `MAX_BYTES`.
        """
        if isinstance(self.source, bytes):
            if len(self.source) > MAX_BYTES:
                raise DataError(f"{self.name} are more than the {MAX_BYTES:,} allowed", field="images")
            return self.source
        if not isinstance(self.source, Path):
            buffer = io.BytesIO()
            self.source.save(buffer, "PNG")
            return buffer.getvalue()
        if (found := member_of(self.source)) is not None:
            try:
                return read_member(*found, MAX_BYTES)
            except DataError as error:
                raise DataError(error.reason, field="images") from error
        check_file(self.source, MAX_BYTES, "images")
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise DataError(f"can't read {self.name}: {error.strerror}", field="images") from error


class Video:
    """A video as its frames in their order, opened only when they are needed.

    Args:
        source: A folder of frames, in natural order of their names (`frame2` before `frame10`); a sequence of
            images, in its own order; a video file or its bytes, read by PyAV (`pip install
            'basereward[video]'`); or a mapping with `video`, any of these, and perhaps `fps`.
        fps: Frames a second of the source, where that is known.

    Raises:
        DataError: When the source is none of these, or has no frame or more than `MAX_FRAMES`.
    """

    def __init__(self, source: object, fps: float | None = None) -> None:
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
        if fps is not None and (
            isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf
        ):
            raise DataError(f"fps is a finite number above 0, not {fps!r}", field="videos")
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
        """The path, or what else tells this video from others in a message."""
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
        """The frames; of a video file all are decoded, so `sampled` is the better question there.

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
            return self._decoded(lambda total: evenly(total, num_frames))
        chosen = evenly(len(self.frames), num_frames)
        return Video([self.frames[at] for at in chosen], _slowed(self.fps, len(self.frames), len(chosen)))

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
    """Return the frames of a folder in natural order of their names; other files are passed over.

    Raises:
        DataError: When there is none, or there are more than `MAX_FRAMES`.
    """
    found = []
    try:
        for path in folder.iterdir():
            if path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith("."):
                found.append(path)
                if len(found) > MAX_FRAMES:
                    raise DataError(
                        f"{folder} has more than the {MAX_FRAMES:,} frames allowed", field="videos"
                    )
    except OSError as error:
        raise DataError(f"can't read {folder}: {error.strerror}", field="videos") from error
    if not found:
        raise DataError(f"{folder} has no frame named *{', *'.join(FRAME_SUFFIXES)}", field="videos")
    return sorted(found, key=lambda path: natural(path.name))


def check_file(path: Path, max_bytes: int, field: str) -> None:
    """Refuse what is no regular file, which might never end, and what is too large.

    Raises:
        DataError: Saying which.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise DataError(f"can't read {path}: {reason}", field=field) from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file", field=field)
    if found.st_size > max_bytes:
        raise DataError(f"{path} has {found.st_size:,} bytes; at most {max_bytes:,} are allowed", field=field)


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


def _from_mapping(mapping: Mapping[str, object]) -> object:
    unknown = set(mapping) - {"bytes", "path"}
    if unknown or (mapping.get("bytes") is None and mapping.get("path") is None):
        raise DataError(
            f"an image mapping has the keys 'bytes' and 'path', one of them filled; it has {sorted(mapping)}",
            field="images",
        )
    return mapping["bytes"] if mapping.get("bytes") is not None else mapping["path"]


def _is_pil(source: object) -> bool:
    # Asked of the type's module, because importing Pillow here would cost every `--help` its time.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(source).__mro__)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    import PIL.Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Sixteen-bit greys: Pillow's own conversion clips at 255 and leaves a white sheet.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode == "F":
        # Greys from 0 to 1 or from 0 to 255; which of them is not written anywhere.
        extrema: Any = image.getextrema()
        scale = 255 if extrema[1] <= 1 else 1
        return image.point(lambda value: value * scale + 0).convert("L").convert("RGB")
    if image.mode == "LAB":
        import PIL.ImageCms

        lab, srgb = PIL.ImageCms.createProfile("LAB"), PIL.ImageCms.createProfile("sRGB")
        return PIL.ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        canvas = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")
