"""Checkpoints: whole or not there, and never a damaged one taken for whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from basereward.storage.atomic import file_digest
from basereward.training.checkpoints import CheckpointError, Checkpoints
from basereward.training.state import SavedState

TENSORS = {"model": {"weight": torch.arange(3.0)}, "random": {"torch": torch.arange(4, dtype=torch.uint8)}}
STATE = {"step": 7, "loss": 0.1 + 0.2, "low": float("-inf"), "text": "ü"}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path / "checkpoint")
    found.save(7, TENSORS, STATE)
    return found


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.directory.iterdir())


def test_what_is_saved_is_read(checkpoints: Checkpoints) -> None:
    found, errors = checkpoints.newest()
    assert found is not None
    assert errors == []
    assert found.state == STATE
    for name, group in TENSORS.items():
        for key, value in group.items():
            assert torch.equal(found.tensors(name).read(key), value)


def test_only_the_newest_stays(checkpoints: Checkpoints) -> None:
    checkpoints.save(100_000_000, TENSORS, STATE)
    checkpoints.save(8, TENSORS, STATE)  # saved last, so it is what the training goes on from
    assert names(checkpoints) == ["step-00000008"]


def test_as_many_as_asked_for_stay(tmp_path: Path) -> None:
    found = Checkpoints(tmp_path / "checkpoint", keep=2)
    for step in (2, 4, 6):
        found.save(step, TENSORS, STATE)
    assert names(found) == ["step-00000004", "step-00000006"]
    (found.path(6) / "model.safetensors").write_bytes(b"")
    newest, errors = found.newest()
    assert newest is not None
    assert (newest.directory, len(errors)) == (found.path(4), 1)
    # Whatever is saved next is of another course than the damaged one.
    found.save(5, TENSORS, STATE)
    assert names(found) == ["step-00000004", "step-00000005"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoint").newest() == (None, [])


def test_what_was_left_unfinished_is_removed(checkpoints: Checkpoints) -> None:
    (checkpoints.directory / "unfinished-step-00000009").mkdir()
    found, _ = checkpoints.newest()
    assert found is not None
    assert names(checkpoints) == ["step-00000007"]


@pytest.mark.parametrize("name", ["model.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_told_by_the_name_of_the_file(checkpoints: Checkpoints, name: str, damage: str) -> None:
    path = checkpoints.path(7) / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.newest()
    assert str(caught.value).startswith(f"{path} is ")
    assert str(caught.value).split(f"{path} is ")[1].split(":")[0] == (
        "missing" if damage == "remove" else "damaged"
    )


def test_the_previous_one_is_taken_if_the_newest_is_damaged(checkpoints: Checkpoints, tmp_path: Path) -> None:
    newer = Checkpoints(tmp_path / "other")
    newer.save(8, TENSORS, STATE)
    newer.path(8).rename(checkpoints.path(8))
    (checkpoints.path(8) / "model.safetensors").write_bytes(b"")
    found, errors = checkpoints.newest()
    assert found is not None
    assert found.directory == checkpoints.path(7)
    expected = f"{checkpoints.path(8)}/model.safetensors is damaged: its SHA-256 differs"
    assert [str(error) for error in errors] == [expected]


def test_another_format_is_not_guessed_at(checkpoints: Checkpoints) -> None:
    from basereward.training import checkpoints as module

    path = checkpoints.path(7) / "state.json"
    content = json.loads(path.read_text())
    content["format"] = 1
    del content["sha256"]
    content["sha256"] = module._digest_of(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.newest()
    assert str(caught.value) == f"{path} has format 1; this version reads format 2"


def rewritten(path: Path, **changes: Any) -> None:
    """Change keys of a state, with the digest that it has then."""
    from basereward.training import checkpoints as module

    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": module._digest_of(content)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"state": []},
        {"files": []},
        {"files": {"model.safetensors": []}},
        {"files": {"model.safetensors": {"sha256": "", "rows": {"weight": "ab"}}}},
        {"files": {"../model.safetensors": {"sha256": "", "rows": {}}}},
        {"files": {"/etc/passwd": {"sha256": "", "rows": {}}}},
    ],
)
def test_a_state_of_another_form_is_damaged_though_its_digest_is_right(
    checkpoints: Checkpoints, changes: dict[str, Any]
) -> None:
    path = checkpoints.path(7) / "state.json"
    rewritten(path, **changes)
    with pytest.raises(CheckpointError, match=f"^{path} is damaged: "):
        checkpoints.newest()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"training": []},
        {"training": {"step": "7"}},
        {"training": {"pace": 7}},
        {"training": {}, "num_steps": None},
    ],
)
def test_a_training_is_not_resumed_from_a_state_of_another_form(
    checkpoints: Checkpoints, state: dict[str, Any]
) -> None:
    path = checkpoints.path(7) / "state.json"
    rewritten(path, state=state)
    found, _ = checkpoints.newest()
    assert found is not None
    with pytest.raises(CheckpointError, match=f"^{path} is damaged: "):
        SavedState.of(found)


def test_a_file_without_tensors_is_damaged_though_its_digest_is_right(checkpoints: Checkpoints) -> None:
    path = checkpoints.path(7) / "model.safetensors"
    path.write_bytes(b"no tensors")
    entry = {"sha256": file_digest(path), "rows": {}}
    rewritten(checkpoints.path(7) / "state.json", files={path.name: entry})
    found, _ = checkpoints.newest()
    assert found is not None
    with pytest.raises(CheckpointError, match=f"^{path} is damaged: "):
        found.tensors("model")


def test_a_full_disk_is_an_error_that_keeps_the_previous_one(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError) as caught:
            checkpoints.save(8, TENSORS, STATE)
    assert str(caught.value) == (
        f"{checkpoints.path(8)}: can't be written: [Errno 28] No space left on device; "
        f"{checkpoints.path(7)} stays the newest"
    )
    assert names(checkpoints) == ["step-00000007"]


def test_a_checkpoint_written_in_the_background_is_of_the_moment_it_was_saved(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    background = Checkpoints(tmp_path / "other", in_background=True)
    weight, state = TENSORS["model"]["weight"].clone(), dict(STATE)
    background.save(7, {**TENSORS, "model": {"weight": weight}}, state)
    weight.zero_()
    state["step"] = 8
    background.commit()
    for path in checkpoints.path(7).iterdir():
        assert (background.path(7) / path.name).read_bytes() == path.read_bytes()
    assert not background.is_writing


def test_a_checkpoint_in_the_background_counts_once_it_is_committed(checkpoints: Checkpoints) -> None:
    background = Checkpoints(checkpoints.directory, in_background=True)
    background.save(8, TENSORS, STATE)
    assert names(checkpoints) == ["step-00000007", "unfinished-step-00000008"]
    # As after a kill: what was being written is gone, and the one before it is whole.
    newest, errors = checkpoints.newest()
    assert newest is not None
    assert (newest.directory, errors) == (checkpoints.path(7), [])
    background = Checkpoints(checkpoints.directory, in_background=True)
    background.save(9, TENSORS, STATE)
    background.save(10, TENSORS, STATE)  # which waits for the one before it
    assert names(checkpoints) == ["step-00000009", "unfinished-step-00000010"]
    background.commit()
    assert names(checkpoints) == ["step-00000010"]


def test_a_full_disk_in_the_background_is_told_when_it_is_noticed(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    background = Checkpoints(checkpoints.directory, in_background=True)
    with monkeypatch.context() as patch:
        patch.setattr("basereward.training.checkpoints.fsync", full)
        background.save(8, TENSORS, STATE)
        while background.is_writing:
            pass
    with pytest.raises(CheckpointError, match=r"No space left on device; .*step-00000007 stays the newest"):
        background.commit()
    assert names(checkpoints) == ["step-00000007"]
