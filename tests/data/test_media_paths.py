"""Images and videos of rows: within the data set's directory, from allowed hosts, out of archives."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import published
import pytest

from basereward import Comparison, DataError
from basereward.config import Component
from basereward.data import read_comparisons
from basereward.data.formats import DetectedDataset
from basereward.data.media_paths import Media
from basereward.plugins import PluginManager

ELSEWHERE = "; images that lie elsewhere: option media_dir"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set's directory with an image, beside which a file lies that is none of its business."""
    root = tmp_path / "set"
    (root / "inner").mkdir(parents=True)
    (root / "cat.png").write_bytes(published.image())
    (tmp_path / "secret.png").write_bytes(published.image("blue"))
    (root / "link.png").symlink_to(root / "cat.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    return root


def located(root: Path, image: Any, **options: Any) -> Any:
    [source] = Media(root, **options).located({"images": [image]}, root)["images"]
    return source


def reason(root: Path, image: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        located(root, image, **options)
    return str(error.value)


def test_an_image_within_the_directory_is_found(root: Path) -> None:
    for name in (
        "cat.png",
        "./cat.png",
        "inner/../cat.png",
        "link.png",
        str(root / "cat.png"),
        "up/set/cat.png",
    ):
        assert located(root, name).samefile(root / "cat.png")
    assert located(root, {"bytes": None, "path": "cat.png"}) == root / "cat.png"
    assert located(root, f"file://{root}/cat.png") == root / "cat.png"


@pytest.mark.parametrize(
    "name", ["../secret.png", "inner/../../secret.png", "out.png", "up/secret.png", "{secret}"]
)
def test_an_image_outside_the_directory_is_refused_however_it_is_named(root: Path, name: str) -> None:
    name = name.format(secret=root.parent / "secret.png")
    message = f"images[0]: {root / name} is not in {root}; allow its directory by the option media_roots"
    assert reason(root, name) == message
    assert reason(root, {"bytes": None, "path": name}) == message
    assert reason(root, Path(root / name)) == message
    assert located(root, name, roots=[root.parent]).samefile(root.parent / "secret.png")


def test_an_image_in_a_message_is_bound_like_others(root: Path) -> None:
    row = {"prompt": [{"role": "user", "content": [{"type": "image", "path": "../secret.png"}]}]}
    with pytest.raises(DataError, match=r"^prompt\[0\]: .* is not in "):
        Media(root).located(row, root)


def test_a_directory_whose_name_begins_alike_is_another(root: Path) -> None:
    other = root.with_name("set-of-others")
    other.mkdir()
    (other / "cat.png").write_bytes(published.image())
    assert "is not in" in reason(root, str(other / "cat.png"))


def test_frames_are_bound_like_images(root: Path) -> None:
    frames = root / "clip"
    frames.mkdir()
    (frames / "1.png").write_bytes(published.image())
    media = Media(root)
    for video in ("clip", ["clip/1.png"], {"video": "clip", "fps": 2}):
        row = media.located({"videos": [video]}, root)
        assert len(Comparison("p", ["a"], videos=row["videos"]).videos[0].frames) == 1
    (frames / "2.png").symlink_to(root.parent / "secret.png")
    for video in (
        "clip",
        ["clip/1.png", "../secret.png"],
        "up/other",
        {"video": "../set/../elsewhere"},
        "..",
    ):
        with pytest.raises(DataError, match=r"^videos\[0\]"):
            media.located({"videos": [video]}, root)
    with pytest.raises(DataError) as error:
        media.located({"videos": ["clip"]}, root)
    assert str(error.value) == (
        f"videos[0]: {frames}/2.png is not in {root}; allow its directory by the option media_roots"
    )


def test_archives_are_looked_into(root: Path) -> None:
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.writestr("a/1.png", published.image("blue"))
        archive.writestr("images/2.png", published.image("blue"))
        archive.writestr("../../3.png", published.image("blue"))
    for name in ("a/1.png", "images/a/1.png", "images.zip/a/1.png", "2.png", "images/2.png"):
        comparison = Comparison("p", ["a"], images=[located(root, name)])
        assert comparison.images[0].open().getpixel((0, 0)) == (0, 0, 255)
        assert len(comparison.images[0].digest) == 64
    # A member's name leads nowhere: it is looked up among the archive's names.
    assert (
        reason(root, "images.zip/none.png")
        == f"images[0]: there is no file {root}/images.zip/none.png{ELSEWHERE}"
    )
    (root / "more.zip").symlink_to(root.parent / "out.zip")
    with zipfile.ZipFile(root.parent / "out.zip", "w") as archive:
        archive.writestr("1.png", published.image())
    assert "is not in" in reason(root, "more.zip/1.png")


def test_a_member_of_an_archive_is_read_within_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", b"\0" * 100_000)
    [image] = Comparison("p", ["a"], images=[located(root, "bomb.zip/zeros.png")]).images
    monkeypatch.setattr("basereward.media.image.MAX_BYTES", 10_000)
    with pytest.raises(DataError) as error:
        image.open()
    assert str(error.value) == (
        f"images: {root}/bomb.zip/zeros.png has 100,000 bytes; at most 10,000 are allowed"
    )
    packed = bytearray((root / "bomb.zip").read_bytes())
    packed[60:70] = b"0123456789"
    (root / "damaged.zip").write_bytes(packed)
    [image] = Comparison("p", ["a"], images=[located(root, "damaged.zip/zeros.png")]).images
    monkeypatch.setattr("basereward.media.image.MAX_BYTES", 1_000_000)
    with pytest.raises(DataError) as error:
        image.open()
    assert (
        str(error.value)
        == f"images: {root}/damaged.zip/zeros.png is damaged, encrypted or packed in an unknown way"
    )


def test_data_urls_are_decoded(root: Path) -> None:
    encoded = base64.b64encode(published.image()).decode()
    assert located(root, f"data:image/png;base64,{encoded}") == published.image()
    assert reason(root, "data:image/png,abc") == "images[0]: is a data: URL that is not base64"
    assert reason(root, "data:image/png;base64,?") == "images[0]: holds text that is not base64"


class Host(http.server.BaseHTTPRequestHandler):
    """An image, a file that is too large, and ways to other hosts."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        port = self.server.server_address[1]
        if self.path.startswith("/to/"):
            self.send_response(302)
            target = {
                "same": "/cat.png",
                "other": f"http://127.0.0.2:{port}/cat.png",
                "file": "file:///etc/passwd",
            }
            self.send_header("Location", target[self.path.removeprefix("/to/")])
            self.end_headers()
            return
        if self.path.startswith("/slow/"):
            self.drip(self.path.removeprefix("/slow/"))
            return
        body = {"/cat.png": published.image(), "/large": b"x" * 100_000}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def drip(self, part: str) -> None:
        """Send a part of an answer a little at a time, until nobody reads any more."""
        pieces = {
            "status": (b"", b"H"),
            "headers": (b"HTTP/1.0 200 OK\r\n", b"X: y\r\n"),
            "redirect": (b"HTTP/1.0 302 Found\r\nLocation: /slow/redirect\r\n\r\n", b"."),
            "body": (b"HTTP/1.0 200 OK\r\n\r\n", b"."),
            "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        }
        first, more = pieces[part]
        try:
            self.wfile.write(first)
            for _ in range(100):
                self.wfile.write(more)
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve on this machine, and return the address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Host.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_is_fetched_unless_its_host_is_allowed(root: Path, host: str) -> None:
    assert reason(root, f"http://{host}/cat.png") == (
        f"images[0]: is a URL (http://{host}/cat.png), and nothing is fetched from 127.0.0.1; allow it by "
        "the option media_hosts = ['127.0.0.1'], or download the file"
    )
    for url in ("ftp://127.0.0.1/cat.png", "gopher://x/y", "http:///cat.png"):
        assert reason(root, url, hosts=["127.0.0.1"]) == (
            f"images[0]: must be a file, or a URL of http or https, not {url}"
        )
    # What stands before an @ is a user's name and no host; a port that is none is no URL.
    assert "nothing is fetched from evil.org" in reason(
        root, "http://127.0.0.1@evil.org/", hosts=["127.0.0.1"]
    )
    assert reason(root, "http://a:b:c/", hosts=["a"]) == "images[0]: is no URL: http://a:b:c/"
    assert Host.asked == []


def test_an_image_of_an_allowed_host_is_fetched_once(root: Path, host: str) -> None:
    for allowed in (host, "127.0.0.1"):
        path = located(root, f"http://{host}/cat.png", hosts=[allowed])
        assert path.read_bytes() == published.image()
    assert located(root, f"http://{host}/to/same", hosts=[host]).read_bytes() == published.image()
    assert Host.asked == ["/cat.png", "/to/same", "/cat.png"]


def test_redirects_to_other_hosts_are_not_followed(root: Path, host: str) -> None:
    assert "nothing is fetched from 127.0.0.2" in reason(root, f"http://{host}/to/other", hosts=[host])
    assert "the host answers 302" in reason(root, f"http://{host}/to/file", hosts=[host])
    assert Host.asked == ["/to/other", "/to/file"]


def test_what_is_missing_too_large_or_too_slow_is_refused(
    root: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://{host}"
    assert reason(root, f"{url}/none", hosts=[host]) == (
        f"images[0]: {url}/none can't be fetched: the host answers 404"
    )
    assert reason(root, "http://127.0.0.1:1/", hosts=["127.0.0.1"]) == (
        "images[0]: http://127.0.0.1:1/ can't be fetched"
    )
    monkeypatch.setattr("basereward.data.download.MAX_BYTES", 1000)
    assert reason(root, f"{url}/large", hosts=[host]) == (
        f"images[0]: {url}/large has more than the 1,000 bytes allowed"
    )
    monkeypatch.setattr("basereward.data.download.MAX_SECONDS", -1)
    assert reason(root, f"{url}/large", hosts=[host]) == f"images[0]: {url}/large took more than -1 seconds"
    assert not (root.parent / "cache").exists()


@pytest.mark.parametrize("part", ["status", "headers", "body", "chunks"])
def test_a_host_that_sends_a_little_at_a_time_is_left(
    part: str, root: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("basereward.data.download.MAX_SECONDS", 0.3)
    url = f"http://{host}/slow/{part}"
    started = time.monotonic()
    assert reason(root, url, hosts=[host]) == f"images[0]: {url} took more than 0.3 seconds"
    assert time.monotonic() - started < 4  # the host would have gone on for 100 times 0.05 seconds


def test_the_body_of_a_redirect_is_not_read(root: Path, host: str) -> None:
    started = time.monotonic()
    assert "the host answers 302" in reason(root, f"http://{host}/slow/redirect", hosts=[host])
    assert time.monotonic() - started < 4


def test_images_that_lie_elsewhere_are_found_by_media_dir(tmp_path: Path) -> None:
    images = tmp_path / "coco" / "train2017"
    images.mkdir(parents=True)
    (images / "1.png").write_bytes(published.image("blue"))
    rows = tmp_path / "rows" / "pairs.jsonl"
    rows.parent.mkdir()
    rows.write_text(
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", "images": ["train2017/1.png"]}) + "\n"
    )
    for options in ({}, {"format": "trl"}):
        [comparison] = read_comparisons(rows, media_dir=str(tmp_path / "coco"), **options)
        assert comparison.images[0].source == images / "1.png"
    [comparison] = DetectedDataset(rows, media_dir=str(tmp_path / "coco"))
    assert comparison.images[0].source == images / "1.png"


@pytest.mark.parametrize("name", sorted(published.SETS))
def test_every_published_data_set_takes_media_dir(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="option media_dir is 'absent', and there is no such directory"):
        PluginManager().build("dataset", Component(name, {"path": str(tmp_path), "media_dir": "absent"}))


def test_media_dir_is_a_directory_that_there_is(tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(DataError, match="option media_dir is 'absent', and there is no such directory"):
        read_comparisons(rows, media_dir="absent")
