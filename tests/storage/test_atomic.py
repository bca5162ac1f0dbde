"""Atomic replacement: an interrupted write leaves the old file whole, and no other if the process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from basereward.storage import atomic


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text("old")
    return path


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is synced and renamed, in order."""
    events: list[str] = []
    fsync, replace = atomic.fsync, Path.replace

    def rename(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return replace(path, target)

    def sync(path: Path) -> None:
        events.append(f"sync {path.name}")
        fsync(path)

    monkeypatch.setattr(atomic, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    return events


def test_a_file_is_on_disk_before_it_gets_its_name_and_its_directory_after(
    path: Path, synced: list[str]
) -> None:
    atomic.write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    assert synced == ["sync .results.json.new", "rename to results.json", f"sync {path.parent.name}"]
    assert names(path.parent) == ["results.json"]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    path: Path, error: type[BaseException], is_shared: bool
) -> None:
    def write() -> None:
        with atomic.replace_file(path, is_shared=is_shared) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert (path.read_text(), names(path.parent)) == ("old", ["results.json"])


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new")
    assert (path.read_text(), names(path.parent)) == ("old", ["results.json"])


KILLED = """
import os, signal, sys
from pathlib import Path
from basereward.storage import atomic
with atomic.{function}(Path(sys.argv[1])) as aside:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path, function: str, write: str) -> None:
    code = KILLED.format(function=function, write=write)
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL


def test_a_kill_leaves_the_old_file_and_the_next_write_clears_up(path: Path) -> None:
    kill_while_writing(path, "replace_file", "aside.write_text('half')")
    assert (path.read_text(), names(path.parent)) == ("old", [".results.json.new", "results.json"])
    atomic.write_text(path, "new")
    assert (path.read_text(), names(path.parent)) == ("new", ["results.json"])


def test_a_kill_leaves_the_old_directory(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "weights").write_text("old")
    kill_while_writing(directory, "replace_directory", "(aside / 'weights').write_text('half')")
    assert (directory / "weights").read_text() == "old"


def test_shared_files_are_written_beside_each_other(path: Path) -> None:
    with (
        atomic.replace_file(path, is_shared=True) as first,
        atomic.replace_file(path, is_shared=True) as second,
    ):
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ends last
    assert names(path.parent) == ["results.json"]


def test_only_old_leftovers_of_a_shared_file_are_removed(path: Path) -> None:
    old, young, other = (
        path.with_name(name) for name in (".results.json.a.new", ".results.json.b.new", "a.new")
    )
    for leftover in (old, young, other):
        leftover.write_text("half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    atomic.remove_abandoned(path)
    assert names(path.parent) == [young.name, other.name, "results.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_directory_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "weights").write_text("old")

    def write() -> None:
        with atomic.replace_directory(directory) as aside:
            (aside / "weights").write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("old", ["model"])


def test_a_directory_takes_the_place_of_another_with_all_that_was_in_it(
    tmp_path: Path, synced: list[str]
) -> None:
    directory = tmp_path / "model"
    for text in ("old", "new"):
        with atomic.replace_directory(directory) as aside:
            (aside / text).mkdir()
            (aside / text / "weights").write_text(text)
    assert (names(directory), names(tmp_path)) == (["new"], ["model"])
    assert {"sync weights", "sync new"} <= set(synced)
    assert synced[-1] == f"sync {tmp_path.name}"
