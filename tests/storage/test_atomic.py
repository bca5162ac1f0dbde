"""Atomic replacement: an interrupted write leaves the old file whole, and no other if the process lives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from basereward.errors import ConfigError
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
    monkeypatch.setattr(atomic, "_aside_name", lambda name: f".{name}.0123456789abcdef.new")
    return events


def none(directory: Path) -> tuple[str, ...]:
    return ()


@pytest.fixture(params=["exchanged at once", "in two steps"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where names can be exchanged, and where they can't."""
    if request.param == "in two steps":
        monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    return str(request.param)


def test_a_file_is_on_disk_before_it_gets_its_name_and_its_directory_after(
    path: Path, synced: list[str]
) -> None:
    atomic.write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    assert synced == [
        "sync .results.json.0123456789abcdef.new",
        "rename to results.json",
        f"sync {path.parent.name}",
    ]
    assert names(path.parent) == ["results.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic.replace_file(path) as aside:
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
path = Path(sys.argv[1])
with {call} as aside:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code: str, path: Path) -> int:
    return subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2]).returncode


def kill_while_writing(path: Path, call: str, write: str) -> None:
    assert run(KILLED.format(call=call, write=write), path) == -signal.SIGKILL


def test_a_kill_leaves_the_old_file_and_the_next_write_clears_up(path: Path) -> None:
    kill_while_writing(path, "atomic.replace_file(path)", "aside.write_text('half')")
    assert path.read_text() == "old"
    left, _ = names(path.parent)
    assert left.startswith(".results.json.")
    atomic.write_text(path, "new")
    assert (path.read_text(), names(path.parent)) == ("new", ["results.json"])


def test_a_kill_leaves_the_old_directory_and_the_next_write_clears_up(tmp_path: Path) -> None:
    directory = made(tmp_path / "model", "old")
    call = "atomic.replace_directory(path, foreign_files=lambda path: ())"
    kill_while_writing(directory, call, "(aside / 'weights').write_text('half')")
    assert (directory / "weights").read_text() == "old"
    assert len(names(tmp_path)) == 2
    write(directory, "new")
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("new", ["model"])


def made(directory: Path, text: str) -> Path:
    directory.mkdir()
    (directory / "weights").write_text(text)
    return directory


def write(directory: Path, text: str) -> None:
    with atomic.replace_directory(directory, foreign_files=none) as aside:
        (aside / "weights").write_text(text)


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from basereward.storage import atomic
atomic._renameat2 = lambda: None
renamed, moments = Path.rename, iter(range({moment}))
def rename(path, target):
    if next(moments, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return renamed(path, target)
Path.rename = rename
with atomic.replace_directory(Path(sys.argv[1]), foreign_files=lambda path: ()) as aside:
    (aside / "weights").write_text("new")
"""


@pytest.mark.parametrize(("moment", "restored"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_kill_between_two_renamings_leaves_a_whole_directory_to_put_back(
    tmp_path: Path, moment: int, restored: str
) -> None:
    directory = made(tmp_path / "model", "old")
    assert run(KILLED_AT.format(moment=moment), directory) == -signal.SIGKILL
    assert directory.exists() is (moment != 1)
    atomic.remove_abandoned(tmp_path)  # before it is put back
    atomic.restore(directory)
    assert (directory / "weights").read_text() == restored
    write(directory, "newer")
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("newer", ["model"])


def test_what_is_half_removed_is_never_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    directory = made(tmp_path / "model", "old")

    def kill(path: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            write(directory, "new")
    shutil.rmtree(directory)
    atomic.restore(directory)
    assert not directory.exists()


WRITERS = """
import sys
from pathlib import Path
from basereward.storage import atomic
if sys.argv[2] == "in two steps":
    atomic._renameat2 = lambda: None
for number in range(300):
    with atomic.replace_directory(Path(sys.argv[1]), foreign_files=lambda path: ()) as aside:
        for name in ("a", "b"):
            (aside / name).write_text(sys.argv[3])
"""


def test_two_writers_of_one_directory_leave_one_that_is_whole(tmp_path: Path, exchange: str) -> None:
    directory = tmp_path / "model"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, str(directory), exchange, name],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )
        for name in ("first", "second")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, b"")
    texts = {path.name: path.read_text() for path in directory.iterdir()}
    assert texts in ({"a": "first", "b": "first"}, {"a": "second", "b": "second"})
    assert names(tmp_path) == ["model"]


def test_a_link_to_a_directory_stays_one(tmp_path: Path, exchange: str) -> None:
    directory = made(tmp_path / "disk", "old")
    link = tmp_path / "model"
    link.symlink_to(directory)
    write(link, "new")
    assert link.is_symlink()
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("new", ["disk", "model"])


def test_a_directory_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    directory = made(tmp_path / "model", "theirs")
    with (
        pytest.raises(
            ConfigError, match=rf"^{directory} holds files that BaseReward has not written \(weights\)"
        ),
        atomic.replace_directory(directory, foreign_files=atomic.file_names),
    ):
        pytest.fail("something was written")
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("theirs", ["model"])


def test_files_are_written_beside_each_other(path: Path) -> None:
    with atomic.replace_file(path) as first, atomic.replace_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ends last
    assert names(path.parent) == ["results.json"]


def test_a_destination_in_use_is_refused_where_it_must_be_one_writer_s(path: Path) -> None:
    atomic.check_unused(path)
    with atomic.replace_file(path) as aside:
        aside.write_text("new")
        with pytest.raises(ConfigError, match=f"^{path} is being written by another process"):
            atomic.check_unused(path)


def test_a_file_in_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        atomic.write_text(tmp_path / "none" / "results.json", "new")


def test_what_a_pipe_or_a_link_gets_is_written_through_it(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    (tmp_path / "link").symlink_to(target)
    atomic.write_text(tmp_path / "link", "new")
    assert (target.read_text(), (tmp_path / "link").is_symlink()) == ("new", True)
    with pytest.raises(ConfigError, match="is no regular file"), atomic.replace_file(Path(os.devnull)):
        pytest.fail("something was written")
    atomic.write_text(Path(os.devnull), "new")
    assert not Path(os.devnull).is_file()


def test_only_our_own_leftovers_are_removed(path: Path) -> None:
    """By their name, and whether somebody has their lock; those of other machines by their age."""
    here = atomic._host()
    kept = [
        "a.new",
        ".results.json.new",
        ".results.json.old",
        ".results.json.backup.new",
        ".results.json.a.new",
    ]
    gone = [f".results.json.{here}00000001.new"]
    elsewhere = [f".results.json.{'f' * 8}0000000{number}.new" for number in (1, 2)]
    for name in (*kept, *gone, *elsewhere):
        path.with_name(name).write_text("half")
    os.utime(path.with_name(elsewhere[0]), (0, 0))
    atomic.remove_abandoned(path.parent, path.name)
    assert names(path.parent) == sorted([*kept, elsewhere[1], "results.json"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_directory_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    directory = made(tmp_path / "model", "old")

    def write() -> None:
        with atomic.replace_directory(directory, foreign_files=none) as aside:
            (aside / "weights").write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert ((directory / "weights").read_text(), names(tmp_path)) == ("old", ["model"])


def test_a_directory_takes_the_place_of_another_with_all_that_was_in_it(
    tmp_path: Path, synced: list[str], exchange: str
) -> None:
    directory = tmp_path / "model"
    for text in ("old", "new"):
        with atomic.replace_directory(directory, foreign_files=none) as aside:
            (aside / text).mkdir()
            (aside / text / "weights").write_text(text)
    assert (names(directory), names(tmp_path)) == (["new"], ["model"])
    assert {"sync weights", "sync new"} <= set(synced)
    assert synced[-1] == f"sync {tmp_path.name}"
