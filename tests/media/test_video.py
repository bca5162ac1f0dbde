"""Videos: frames of folders, lists and video files in their order, and no bad file gets past the door."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward.errors import ConfigError, DataError
from basereward.extras import install_command
from basereward.media import Video
from basereward.media.video import evenly, natural


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
    assert str(error.value) == f"reading video files needs PyAV; run {install_command('video')}"
