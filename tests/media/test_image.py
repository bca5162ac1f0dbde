"""Images and videos: every kind opens as RGB, and no bad file gets past the door."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward.errors import ConfigError, DataError
from basereward.media import Image, Video
from basereward.media.limits import MAX_PIXELS
from basereward.media.video import evenly, natural


def encoded(image: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes that declares a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_one_image_opens_alike_from_path_bytes_mapping_and_memory(tmp_path: Path) -> None:
    image = Pillow.new("RGB", (3, 2), (10, 20, 30))
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image))
    sources = [path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, image]
    opened = [Image(source).open() for source in sources]
    assert all(found.mode == "RGB" and found.tobytes() == image.tobytes() for found in opened)


def test_transparent_parts_are_white() -> None:
    clear = Pillow.new("RGBA", (1, 1), (200, 0, 0, 0))
    assert Image(encoded(clear)).open().getpixel((0, 0)) == (255, 255, 255)


def test_an_exif_turn_is_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    assert Image(encoded(Pillow.new("RGB", (4, 2)), "JPEG", exif=exif)).open().size == (2, 4)


def test_sixteen_bit_grey_keeps_its_greys() -> None:
    grey = Pillow.new("I;16", (1, 1), 32768)
    assert Image(encoded(grey)).open().getpixel((0, 0)) == (128, 128, 128)


def test_the_digest_tells_size_and_mode_apart() -> None:
    # Twelve zero bytes each: as bytes they are equal, as images they are not.
    images = [Pillow.new("RGB", (4, 1)), Pillow.new("RGB", (2, 2)), Pillow.new("L", (4, 3))]
    assert len({Image(image).digest for image in images}) == 3


BAD = {
    "missing file": (Path("nowhere.png"), "images: can't read nowhere.png: No such file or directory"),
    "no image": (b"hello", "images: 5 bytes is no image in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
    "empty": (b"", "images: 0 bytes is no image in PNG, JPEG, WEBP, GIF, BMP, TIFF, MPO, PPM"),
    "bomb": (
        png_header(30_000, 2_000),
        f"images: {len(png_header(30_000, 2_000))} bytes has 30000 x 2000 pixels; "
        "at most 32,000,000 are allowed",
    ),
    "vast bomb": (
        png_header(60_000, 60_000),
        f"images: {len(png_header(60_000, 60_000))} bytes has more than {MAX_PIXELS:,} pixels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_refused(case: str) -> None:
    source, message = BAD[case]
    with pytest.raises(DataError) as error:
        Image(source).open()
    assert str(error.value) == message


def test_a_truncated_image_is_refused() -> None:
    whole = encoded(Pillow.effect_noise((64, 64), 50).convert("RGB"))
    with pytest.raises(DataError, match="is cut short or damaged$"):
        Image(whole[: len(whole) // 2]).open()


def test_formats_that_run_programs_are_not_tried() -> None:
    with pytest.raises(DataError, match="is no image in"):
        Image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").open()


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
]
MODES += ["I;16", "I;16L", "I;16B"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_opens_as_rgb(mode: str) -> None:
    assert Image(Pillow.new(mode, (2, 2))).open().mode == "RGB"


def test_colours_survive_their_mode() -> None:
    red = Pillow.new("RGB", (1, 1), (255, 0, 0))
    for mode in ("RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV"):
        colour = Image(red.convert(mode)).open().getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(colour, (255, 0, 0), strict=True)) <= 1, mode
    # L* = 128 / 255 * 100 = 50.2 without colour is a grey of 119 to 120 in sRGB.
    grey = Image(Pillow.merge("LAB", [Pillow.new("L", (1, 1), value) for value in (128, 128, 128)])).open()
    assert all(abs(value - 119) <= 2 for value in grey.getpixel((0, 0)))


def test_greys_of_floats_are_shares_or_bytes() -> None:
    shares, values = Pillow.new("F", (2, 1), 0.5), Pillow.new("F", (2, 1), 100.0)
    assert Image(shares).open().getpixel((0, 0)) == (127, 127, 127)  # 0.5 * 255, cut
    assert Image(values).open().getpixel((0, 0)) == (100, 100, 100)


def test_a_file_that_is_too_large_or_endless_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Pillow.new("RGB", (8, 8))))
    size = path.stat().st_size
    monkeypatch.setattr("basereward.media.image.MAX_BYTES", 10)
    for source, message in (
        (path, f"images: {path} has {size:,} bytes; at most 10 are allowed"),
        (path.read_bytes(), f"images: {size} bytes are more than the 10 allowed"),
        (Path("/dev/zero"), "images: /dev/zero is no regular file"),
        (Path("a\0b"), "images: can't read a\0b: no file has such a name"),
    ):
        with pytest.raises(DataError) as error:
            Image(source).open()
        assert str(error.value) == message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of twelve frames, each as grey as its number, and a file that is no frame."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(12):
        Pillow.new("RGB", (4, 4), (number,) * 3).save(frames / f"frame{number}.png")
    (frames / "notes.txt").write_text("no frame")
    (frames / ".hidden.png").write_text("no frame")
    return frames


def greys(video: Video) -> list[int]:
    return [frame.open().getpixel((0, 0))[0] for frame in video.frames]


def test_frames_of_a_folder_are_in_natural_order(folder: Path) -> None:
    # In the order of letters frame10 and frame11 would come before frame2.
    assert greys(Video(folder)) == list(range(12))
    assert Video(folder) == Video(str(folder)) == Video({"video": folder, "fps": None})


def test_frames_of_a_list_stay_in_their_order(folder: Path) -> None:
    assert greys(Video([folder / "frame10.png", str(folder / "frame2.png")])) == [10, 2]


def test_sampling_is_even_from_the_first_frame_to_the_last(folder: Path) -> None:
    video = Video(folder, fps=11)
    # Of 12 frames, 4: 0 * 11 / 3, 1 * 11 / 3, 2 * 11 / 3 and 3 * 11 / 3, cut.
    assert greys(video.sampled(4)) == [0, 3, 7, 11]
    assert video.sampled(4).fps == 3  # three steps in the second that eleven steps took
    assert greys(video.sampled(1)) == [5]
    assert greys(video.sampled(50)) == list(range(12))
    assert video.sampled(50).fps == 11
    with pytest.raises(ConfigError, match="^num_frames is a number >= 1, not 0$"):
        video.sampled(0)


@given(total=st.integers(1, 500), count=st.integers(1, 500))
def test_sampled_frames_rise_and_are_as_many_as_there_can_be(total: int, count: int) -> None:
    chosen = evenly(total, count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < total
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)


@given(st.lists(st.text("a1.0²٣", max_size=6)))
def test_any_names_have_a_natural_order(names: list[str]) -> None:
    assert sorted(sorted(names), key=natural) == sorted(sorted(names, reverse=True), key=natural)


def video_file(path: Path, num_frames: int = 30) -> Path:
    """Write a video of ten frames a second, each lighter than the one before."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_image(Pillow.new("RGB", (64, 48), (number * 8,) * 3))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_video_file_is_decoded_and_sampled(tmp_path: Path) -> None:
    path = video_file(tmp_path / "a.mp4")
    assert len(Video(path).frames) == 30
    sampled = Video(path).sampled(4)
    # Frames 0, 9, 19 and 29 of 30, each 8 lighter than the one before; the codec loses a little.
    assert all(abs(a - b) <= 5 for a, b in zip(greys(sampled), (0, 72, 152, 232), strict=True))
    assert sampled.fps == pytest.approx(10 * 3 / 29)
    assert Video(path).digest == Video(path.read_bytes()).digest


BAD_VIDEOS = {
    "no video": (b"hello", "videos: 5 bytes is no video that can be read"),
    # A playlist names files that the decoder would open.
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "videos: 70 bytes is no video that can be read",
    ),
    "missing": ("nowhere.mp4", "videos: can't read nowhere.mp4: No such file or directory"),
    "endless": ("/dev/zero", "videos: /dev/zero is no regular file"),
    "nothing": ([], "videos: a video has 1 to 10,000 frames, not 0"),
    "many": (["a.png"] * 10_001, "videos: a video has 1 to 10,000 frames, not 10,001"),
    "of no kind": (
        5,
        "videos: a video is a folder of frames, a list of images, a video file, or a mapping with 'video', "
        "not int",
    ),
    "of nothing known": (
        {"path": "a"},
        "videos: a video mapping has the keys 'video' and perhaps 'fps'; this one has ['path']",
    ),
    "of no speed": ({"video": "a", "fps": 0}, "videos: fps is a finite number above 0, not 0"),
}


@pytest.mark.parametrize("case", BAD_VIDEOS)
def test_a_bad_video_is_refused(case: str) -> None:
    source, message = BAD_VIDEOS[case]
    pytest.importorskip("av")
    with pytest.raises(DataError) as error:
        Video(source).sampled(4)
    assert str(error.value) == message


def test_a_video_file_that_is_cut_short_gives_what_is_left_or_an_error(tmp_path: Path) -> None:
    pytest.importorskip("av")
    whole = video_file(tmp_path / "a.avi").read_bytes()
    for end in range(0, len(whole), 97):
        try:
            found = f"{len(Video(whole[:end]).sampled(4).frames)} frames"
        except DataError as error:
            found = str(error)
        assert found in (
            "4 frames",
            "3 frames",
            "2 frames",
            "1 frames",
            f"videos: {end} bytes is no video that can be read",
            f"videos: {end} bytes has no frame",
        )


def test_frames_of_more_pixels_than_memory_holds_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_file(tmp_path / "a.mp4")
    monkeypatch.setattr("basereward.media.video_decoding.MAX_VIDEO_PIXELS", 64 * 48 * 10)
    assert len(Video(path).sampled(10).frames) == 10
    with pytest.raises(DataError) as error:
        _ = Video(path).frames
    assert str(error.value) == (
        f"videos: {path} has 30 frames of 64 x 48 pixels; at most 32,000,000 pixels a frame and 30,720 "
        "in all are allowed; sample fewer frames"
    )


def test_a_folder_without_frames_or_with_too_many_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=f"^videos: {tmp_path} has no frame named \\*.png, "):
        _ = Video(tmp_path).frames
    monkeypatch.setattr("basereward.media.video.MAX_FRAMES", 11)
    with pytest.raises(DataError) as error:
        _ = Video(folder).frames
    assert str(error.value) == f"videos: {folder} has more than the 11 frames allowed"


def test_a_video_file_without_pyav_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError) as error:
        Video(b"film").sampled(2)
    assert str(error.value) == "reading video files needs PyAV; run pip install 'basereward[video]'"
