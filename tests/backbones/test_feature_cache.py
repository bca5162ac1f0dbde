"""A cache of tensors: what was put in is found again, whole, or not at all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from basereward.backbones.feature_cache import CacheWarning, FeatureCache, WeightsDigest, key_of, precision_of
from basereward.errors import ConfigError
from basereward.storage.atomic import replace_file


def entry(number: int) -> dict[str, Tensor]:
    return {"states": torch.full((2, 3), float(number)), "lengths": torch.tensor([number, 1])}


def key(number: int) -> str:
    return key_of("test", number)


def assert_found(cache: FeatureCache, number: int) -> None:
    found = cache.get(key(number))
    assert found is not None
    assert list(found) == ["states", "lengths"]
    for name, value in entry(number).items():
        assert torch.equal(found[name], value)


def shards(directory: Path) -> list[Path]:
    return sorted((directory / "basereward-features").glob("*.safetensors"))


def test_entries_are_found_before_and_after_they_are_written_and_by_others(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new" / "cache")
    assert cache.get(key(0)) is None
    cache.put(key(0), entry(0))
    assert_found(cache, 0)
    assert not shards(tmp_path / "new" / "cache")
    cache.flush()
    assert_found(cache, 0)
    assert_found(FeatureCache(tmp_path / "new" / "cache"), 0)
    assert len(cache) == 1


def test_types_are_kept(tmp_path: Path) -> None:
    with FeatureCache(tmp_path) as cache:
        cache.put(key(0), {"a": torch.tensor([1.5], dtype=torch.bfloat16), "b": torch.tensor([[True]])})
    found = FeatureCache(tmp_path).get(key(0))
    assert found is not None
    assert {name: value.dtype for name, value in found.items()} == {"a": torch.bfloat16, "b": torch.bool}


def test_what_is_put_is_what_it_was_then(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    states = torch.ones(2, requires_grad=True)
    cache.put(key(0), {"states": states})
    with torch.no_grad():
        states.zero_()
    found = cache.get(key(0))
    assert found is not None
    assert found["states"].tolist() == [1.0, 1.0]
    assert not found["states"].requires_grad


def test_a_file_is_written_when_enough_waits_and_is_named_by_its_content(tmp_path: Path) -> None:
    # An entry is of 2 * 3 * 4 + 2 * 8 = 40 bytes, so the third one makes a file.
    cache = FeatureCache(tmp_path, shard_bytes=100)
    for number in range(4):
        cache.put(key(number), entry(number))
        assert len(shards(tmp_path)) == (number >= 2)
    other = tmp_path / "other"
    with FeatureCache(other, shard_bytes=100) as same:
        for number in range(3):
            same.put(key(number), entry(number))
    assert [path.name for path in shards(other)] == [path.name for path in shards(tmp_path)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", ["a byte", "cut short", "emptied", "no safetensors", "no list"])
def test_a_damaged_file_is_removed_with_one_warning_and_never_used(tmp_path: Path, damage: str) -> None:
    with FeatureCache(tmp_path, shard_bytes=1) as cache:
        cache.put(key(0), entry(0))
        cache.put(key(1), entry(1))
    [path] = [path for path in shards(tmp_path) if key(0).encode() in path.read_bytes()]
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[-1] ^= 1
    elif damage == "cut short":
        del content[-1]
    elif damage == "emptied":
        content.clear()
    elif damage == "no list":
        content = bytearray(content.replace(b'"entries"', b'"entriez"'))
    else:
        content[:8] = b"\xff" * 8
    path.write_bytes(content)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        later = FeatureCache(tmp_path)
        assert later.get(key(0)) is None
        assert later.get(key(0)) is None
        assert_found(later, 1)
    text = f"{path}: is not the file that was written; it is removed, and what it held is computed again"
    assert [str(warning.message) for warning in caught] == [text]
    assert caught[0].category is CacheWarning
    assert len(shards(tmp_path)) == 1

    later.put(key(0), entry(0))
    later.flush()
    assert_found(later, 0)
    assert_found(FeatureCache(tmp_path), 0)


def test_a_file_that_vanishes_is_a_miss(tmp_path: Path) -> None:
    with FeatureCache(tmp_path) as cache:
        cache.put(key(0), entry(0))
    later = FeatureCache(tmp_path)
    shards(tmp_path)[0].unlink()
    with pytest.warns(CacheWarning, match="is not the file that was written"):
        assert later.get(key(0)) is None


def test_a_full_disk_ends_keeping_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(key(0), entry(0))

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    text = f"{cache.directory}: can't be written to, so nothing more is kept: No space left on device"
    with pytest.warns(CacheWarning) as caught:
        cache.flush()
    assert [str(warning.message) for warning in caught] == [text]
    cache.put(key(1), entry(1))
    cache.flush()
    assert [path.name for path in cache.directory.iterdir()] == ["CACHEDIR.TAG"]


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^cache: {tmp_path}/file can't be made: Not a directory$"):
        FeatureCache(tmp_path / "file")


def test_unfinished_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    directory = FeatureCache(tmp_path).directory
    with replace_file(directory / "new.safetensors") as aside:
        aside.touch()
        abandoned = directory / aside.name.replace("new", "old", 1)
        abandoned.touch()
        FeatureCache(tmp_path)
        assert (aside.exists(), abandoned.exists()) == (True, False)


def user_files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "CACHEDIR.TAG"
    }


@pytest.mark.parametrize("folder", [".", "basereward-features"])
def test_a_cache_removes_no_file_that_is_not_its_own(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    weights = save({"layer.weight": torch.ones(2)})
    (place / "model.safetensors").write_bytes(weights)
    (place / f"{hashlib.sha256(weights).hexdigest()}.safetensors").write_bytes(weights)
    (place / "damaged.safetensors").write_bytes(b"")
    (place / ".model.safetensors.old").write_bytes(b"kept")
    before = user_files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        with FeatureCache(tmp_path) as cache:
            cache.put(key(0), entry(0))
        assert_found(FeatureCache(tmp_path), 0)
    after = user_files(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


@pytest.mark.parametrize("is_new", [False, True])
def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    if not is_new:
        with FeatureCache(tmp_path) as cache:
            cache.put(key(0), entry(0))
        [path] = shards(tmp_path)
        path.write_bytes(path.read_bytes() + b"damaged")

    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(30, "Read-only file system")

    for name in ("mkdir", "unlink", "rename", "open"):
        monkeypatch.setattr(os, name, refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = FeatureCache(tmp_path)
        assert cache.get(key(0)) is None
        cache.put(key(1), entry(1))
        cache.flush()
    assert {warning.category for warning in caught} == {CacheWarning}
    assert "Read-only file system" in str(caught[-1].message)


def test_a_pipe_in_a_cache_is_not_waited_for(tmp_path: Path) -> None:
    with FeatureCache(tmp_path) as cache:
        os.mkfifo(cache.directory / f"{'0' * 64}.safetensors")
        cache.put(key(0), entry(0))
    assert_found(FeatureCache(tmp_path), 0)


def write(directory: Path, first: int, last: int) -> None:
    """Put entries, a file each, and end without a word."""
    cache = FeatureCache(directory, shard_bytes=1)
    for number in range(first, last):
        cache.put(key(number), entry(number))
    cache.shard_bytes = 1000
    cache.put(key(1000 + first), entry(0))
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_write_at_once_and_a_kill_loses_what_waits_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    # Forked children must not wait for threads that aren't there.
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        children = [context.Process(target=write, args=(tmp_path, 10 * n, 10 * n + 15)) for n in range(3)]
        for child in children:
            child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
    cache = FeatureCache(tmp_path)
    for number in range(35):
        assert_found(cache, number)
    assert len(cache) == 35


def test_a_key_tells_kinds_and_all_parts_apart() -> None:
    keys = {key_of("a", "b", "c"), key_of("a", "bc"), key_of("ab", "c"), key_of("a", ["b", "c"]), key_of("a")}
    assert len(keys) == 5
    assert key_of("a", {"x": 1, "y": None}) == key_of("a", {"y": None, "x": 1})
    assert all(len(one) == 64 for one in keys)


def test_a_digest_of_weights_follows_every_change() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    digest = WeightsDigest(module)
    first = digest()
    assert digest() == first
    found = {first}
    with torch.no_grad():
        module[0].weight[0, 0] += 1
    found.add(digest())
    module(torch.randn(4, 2))  # which moves the running averages
    found.add(digest())
    module[0] = nn.Linear(2, 2)
    found.add(digest())
    module.double()
    found.add(digest())
    assert len(found) == 5
    torch.manual_seed(0)
    assert WeightsDigest(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))() == first


def test_precision_is_that_of_the_context() -> None:
    assert precision_of("cpu") == "weights"
    with torch.autocast("cpu", torch.bfloat16):
        assert precision_of(torch.device("cpu")) == "torch.bfloat16"
    assert precision_of("cpu") == "weights"
