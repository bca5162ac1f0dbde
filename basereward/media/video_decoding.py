"""Frames of video files, by PyAV, of formats that can't refer to other files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import ConfigError, DataError
from basereward.extras import install_command
from basereward.media.limits import MAX_PIXELS, MAX_VIDEO_PIXELS

if TYPE_CHECKING:
    import PIL.Image

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,gif"
"""Containers that are tried. Left out are playlists, which make the decoder open what they name."""


def decoded(
    source: Path | bytes, choose: Callable[[int], Sequence[int]], name: str
) -> tuple[list[PIL.Image.Image], int, float | None]:
    """Decode some frames of a video file, of which no others stay in memory.

    Args:
        source: The file or its bytes.
        choose: Returns the indices of the frames that are wanted, of a number of frames.
        name: Stands for the video in errors.

    Returns:
        The frames in RGB, how many the file has, and its frames a second where it says.

    Raises:
        DataError: When it is no video, has no frame, or the frames are more than the limits allow.
        ConfigError: When PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"reading video files needs PyAV; run {install_command('video')}") from error
    try:
        total = _count(av, source)
        images, seen, fps = _decode(av, source, set(choose(total)), name)
        if seen != total:
            # Cut short, or with packets that hold no frame of their own.
            total = seen
            images, seen, fps = _decode(av, source, set(choose(total)), name)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} is no video that can be read", field="videos") from error
    if not images:
        raise DataError(f"{name} has no frame", field="videos")
    return images, total, fps


def _count(av: Any, source: Path | bytes) -> int:
    # Of the packets, because what the header says is not always there, nor always true.
    with _open(av, source) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def _decode(
    av: Any, source: Path | bytes, wanted: set[int], name: str
) -> tuple[list[PIL.Image.Image], int, float | None]:
    images = []
    seen = 0
    with _open(av, source) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        for limit, pixels in ((MAX_PIXELS, width * height), (MAX_VIDEO_PIXELS, width * height * len(wanted))):
            if pixels > limit:
                raise DataError(
                    f"{name} has {len(wanted):,} frames of {width} x {height} pixels; at most {MAX_PIXELS:,} "
                    f"pixels a frame and {MAX_VIDEO_PIXELS:,} in all are allowed; sample fewer frames",
                    field="videos",
                )
        try:
            for frame in container.decode(stream):
                if seen in wanted:
                    images.append(frame.to_image())
                seen += 1
        except av.FFmpegError:
            if not seen:
                raise
        rate = stream.average_rate
    return images, seen, float(rate) if rate else None


@contextmanager
def _open(av: Any, source: Path | bytes) -> Iterator[Any]:
    # A file object of our own and no protocol: nothing else can be opened, whatever the file says.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
    with (
        io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
        av.open(file, options=options) as container,
    ):
        yield container
